"""The folder of a run: the name of every file that one recipe writes and another reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEMONSTRATIONS = "demos"
CLONING = "bc"
VALUE = "value"
DATA = "data"


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files lie.

    Args:
        root: the run's output folder.
        given_demonstrations: demonstrations that lie elsewhere.
        given_policy: a policy to start from that lies elsewhere.
        given_value_model: a value model that lies elsewhere.
        given_data: decoded frames of data from outside that lie elsewhere.

    Example:
        >>> folder = RunFolder(Path("outputs/run"), given_policy=Path("other.safetensors"))
        >>> folder.value_model.as_posix(), folder.policy.as_posix()
        ('outputs/run/value/value.safetensors', 'other.safetensors')
        >>> folder.tuned("rftf").checkpoints.as_posix()
        'outputs/run/rftf/checkpoints'
    """

    root: Path
    given_demonstrations: Path | None = None
    given_policy: Path | None = None
    given_value_model: Path | None = None
    given_data: Path | None = None

    @property
    def demonstrations(self) -> Path:
        """The folder of the demonstrations."""
        return self.given_demonstrations or self.root / DEMONSTRATIONS

    @property
    def data(self) -> Path:
        """The decoded frames of data from outside."""
        return self.given_data or self.root / DATA

    @property
    def cloning(self) -> Path:
        """What cloning writes: the policy and the curve of its loss."""
        return self.root / CLONING

    @property
    def policy(self) -> Path:
        """The cloned policy, from which fine-tuning starts."""
        return self.given_policy or self.cloning / "policy.safetensors"

    @property
    def value(self) -> Path:
        """What the value model's training writes."""
        return self.root / VALUE

    @property
    def value_model(self) -> Path:
        """The value model."""
        return self.given_value_model or self.value / "value.safetensors"

    @property
    def value_training(self) -> Path:
        """How the value model was trained and how it orders held-out demonstrations."""
        return self.value / "report.json"

    @property
    def evaluation(self) -> Path:
        """What an evaluation writes."""
        return self.root / "evaluation"

    @property
    def value_report(self) -> Path:
        """What a report on the value model writes."""
        return self.root / "value_report"

    @property
    def annotation(self) -> Path:
        """The values of a data set's episodes and what they flag."""
        return self.root / "annotation"

    def tuned(self, name: str) -> TunedFolder:
        """What fine-tuning of a name writes."""
        return TunedFolder(self.root / name)


@dataclass(frozen=True)
class TunedFolder:
    """Where the files of one fine-tuning lie."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def policy(self) -> Path:
        """The fine-tuned policy."""
        return self.root / "policy.safetensors"

    @property
    def value_model(self) -> Path:
        """The value model as it pays in the end, where it went on learning."""
        return self.root / "value.safetensors"

    @property
    def metrics(self) -> Path:
        """A row of numbers for each iteration."""
        return self.root / "metrics.csv"

    @property
    def settings(self) -> Path:
        """The settings that a resumed run has to agree with."""
        return self.root / "settings.json"

    @property
    def end(self) -> Path:
        """Where fine-tuning ended."""
        return self.root / "ended.json"
