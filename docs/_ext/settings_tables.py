"""``.. settings-tables::`` writes the recipes' settings from the dataclasses of the schema."""

import dataclasses
import inspect
import re

from sphinx.util.docutils import SphinxDirective

from rftf_torchrl.configs import schema
from rftf_torchrl.envs.simulator import SIMULATORS, simulator_class


def described(config: type) -> dict[str, str]:
    """The meaning of each field, from the class's ``Attributes:``."""
    lines = inspect.getdoc(config).partition("Attributes:\n")[2].splitlines()
    meanings: dict[str, str] = {}
    for line in lines:
        start = re.fullmatch(r" {4}(\w+): (.*)", line)
        if start:
            name, meanings[start[1]] = start[1], start[2]
        elif line.strip():
            meanings[name] += " " + line.strip()
    return meanings


def default(field: dataclasses.Field) -> str:
    """The default as one writes it on the command line."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value == schema.MISSING:
        return "set by the recipe's YAML file"
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return f"``{text}``"


def table(config: type, prefix: str = "") -> list[str]:
    """A list-table of a dataclass's plain fields."""
    meanings = described(config)
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 30 20 50",
        "",
        "   * - setting",
        "     - default",
        "     - meaning",
    ]
    for field in dataclasses.fields(config):
        if not dataclasses.is_dataclass(field.default_factory):
            lines += [
                f"   * - ``{prefix}{field.name}``",
                f"     - {default(field)}",
                f"     - {meanings[field.name]}",
            ]
    return [*lines, ""]


class SettingsTables(SphinxDirective):
    """One table for the run and one for each group of its settings."""

    def run(self):
        lines = ["The run", "^^^^^^^", "", *table(schema.RunConfig)]
        for field in dataclasses.fields(schema.RunConfig):
            if dataclasses.is_dataclass(field.default_factory):
                group = field.default_factory
                title = f"``{field.name}``"
                summary = inspect.getdoc(group).splitlines()[0]
                lines += [title, "^" * len(title), "", summary, ""]
                lines += table(group, f"{field.name}.")
        for kind in SIMULATORS.names:
            title = f"``env.options`` of ``env.kind={kind}``"
            options = simulator_class(kind).Options
            lines += [title, "^" * len(title), "", *table(options, "env.options.")]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app):
    app.add_directive("settings-tables", SettingsTables)
    return {"parallel_read_safe": True}
