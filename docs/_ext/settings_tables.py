"""``.. settings-tables::`` writes the recipes' settings from the dataclasses that declare them."""

import dataclasses
import inspect

from sphinx.util.docutils import SphinxDirective

from rftf_torchrl.configs import schema
from rftf_torchrl.configs.describe import Row, fields_of, is_group, kinds
from rftf_torchrl.study.config import StudyConfig


def table(rows: list[Row]) -> list[str]:
    """A list-table of name, type and range, default, meaning."""
    head = ("setting", "type and range", "default", "meaning")
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 26 18 16 40", ""]
    for row in (head, *rows):
        lines += [f"   {mark} - {cell}" for mark, cell in zip("*   ", row, strict=True)]
    return [*lines, ""]


class SettingsTables(SphinxDirective):
    """One table for the run, for each group of its settings, for each kind's options, a study."""

    def run(self):
        lines = [".. py:currentmodule:: rftf_torchrl", "", "The run", "^^^^^^^", ""]
        lines += table(fields_of(schema.RunConfig))
        for field in dataclasses.fields(schema.RunConfig):
            if is_group(field):
                group, title = field.default_factory, f"``{field.name}``"
                summary = inspect.getdoc(group).splitlines()[0]
                lines += [title, "^" * len(title), "", summary, ""]
                lines += table(fields_of(group, f"{field.name}."))
        for kind, rows, note in kinds():
            title = f"Options of ``{kind}``"
            lines += [title, "^" * len(title), "", note, "", *(table(rows) if rows else [])]
        title = "A study, ``rftf compare``"
        lines += [title, "^" * len(title), "", *table(fields_of(StudyConfig))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app):
    app.add_directive("settings-tables", SettingsTables)
    return {"parallel_read_safe": True}
