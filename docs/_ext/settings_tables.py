"""``.. settings-tables::`` writes the recipes' settings from the dataclasses that declare them."""

import dataclasses
import inspect
import typing

from sphinx.util.docutils import SphinxDirective

from rftf_torchrl.configs import schema
from rftf_torchrl.configs.describe import (
    Row,
    default,
    described,
    fields_of,
    is_group,
    type_and_range,
)
from rftf_torchrl.data.readers.door import READERS, VIEW
from rftf_torchrl.envs.simulator import SIMULATORS, simulator_class
from rftf_torchrl.paper_policies.gr_mg.spec import GRMGSpec
from rftf_torchrl.paper_policies.seer.spec import SeerSpec
from rftf_torchrl.policies.lerobot.spec import LeRobotOptions
from rftf_torchrl.policies.small_vla import SmallOptions
from rftf_torchrl.policies.transformers_vla.options import TransformersOptions
from rftf_torchrl.rewards.forms import FORMS
from rftf_torchrl.study.config import StudyConfig
from rftf_torchrl.values.kinds import VALUE_KINDS, value_spec_class

POLICY_OPTIONS = {
    "small": SmallOptions,
    "transformers": TransformersOptions,
    "lerobot": LeRobotOptions,
    "gr_mg": GRMGSpec,
    "seer": SeerSpec,
}
# A run fills these fields of a policy's spec in by itself.
FILLED_IN = ("chunk_size", "wrist", "files")


def table(rows: list[Row]) -> list[str]:
    """A list-table of name, type and range, default, meaning."""
    head = ("setting", "type and range", "default", "meaning")
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 26 18 16 40", ""]
    for row in (head, *rows):
        lines += [f"   {mark} - {cell}" for mark, cell in zip("*   ", row, strict=True)]
    return [*lines, ""]


def options_of(function, prefix: str, filled_in: tuple[str, ...]) -> list[Row]:
    """A row for each option of a function, which it takes by keyword."""
    meanings = described(function, "Args")
    hints = typing.get_type_hints(function, include_extras=True)
    return [
        (
            f"``{prefix}{each.name}``",
            type_and_range(hints[each.name]),
            default(each.default),
            meanings[each.name],
        )
        for each in inspect.signature(function).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name not in filled_in
    ]


def kinds() -> typing.Iterator[tuple[str, list[Row]]]:
    """Title and rows of the options of every kind."""
    for kind in SIMULATORS.names:
        yield f"env.kind={kind}", fields_of(simulator_class(kind).Options, "env.options.")
    for kind, options in POLICY_OPTIONS.items():
        yield f"policy.kind={kind}", fields_of(options, "policy.options.", FILLED_IN)
    for kind in VALUE_KINDS.names:
        yield f"value.kind={kind}", fields_of(value_spec_class(kind), "value.options.")
    for form in FORMS.names:
        yield f"reward.form={form}", options_of(FORMS.find(form), "reward.options.", ("gamma",))
    for kind in READERS.names:
        yield f"data.kind={kind}", options_of(READERS.find(kind), "data.options.", VIEW)


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
        for kind, rows in kinds():
            title = f"Options of ``{kind}``"
            lines += [title, "^" * len(title), "", *table(rows)]
        title = "A study, ``rftf compare``"
        lines += [title, "^" * len(title), "", *table(fields_of(StudyConfig))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app):
    app.add_directive("settings-tables", SettingsTables)
    return {"parallel_read_safe": True}
