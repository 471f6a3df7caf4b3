"""Checkpoints of a run: never overwritten, checked before use, with all random-generator states."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchrl.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointRotation,
    GlobalRNGState,
    StateDictCheckpointAdapter,
)
from torchrl.checkpoint._checkpoint import _encode_state_dict_value

from rftf_torchrl.errors import UserError
from rftf_torchrl.files import check_space, name_in_errors, reserve, write_text
from rftf_torchrl.leftovers import clear_leftovers, temporary_folder
from rftf_torchrl.nets.finite_weights import check_finite_weights
from rftf_torchrl.new_folder import NewFolder
from rftf_torchrl.training.checkpoint_guard import foreign_parts, tensor_with_nan

RNG = "rng"
PREFIX = "checkpoint"
SUFFIX = ".torchrl"
SHAPES = "shapes"
MANIFEST = "manifest.json"
MAX_LISTED = 8
_UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError),
    *(ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged archive can raise."""

logger = logging.getLogger(__name__)

Shapes = dict[str, dict[str, list[int] | None]]


class UnusableCheckpointError(CheckpointError, UserError):
    """A checkpoint that is damaged, or of another run."""


class RunCheckpoints:
    """Save and load a run's components, the newest few kept.

    Each checkpoint is one archive file of :class:`torchrl.checkpoint.Checkpoint`, hidden until it
    is whole, so that a kill or a full disk leaves the previous ones. Writing one needs the space of
    two. The states of Python's, NumPy's and Torch's generators go with it. The same states give the
    same bytes: TorchRL's random ``checkpoint_id`` and its ``created_at`` are left out.

    Args:
        folder: where the files lie; made at the first :meth:`save`.
        keep: how many to keep. With 1 there is nothing to fall back to.
        **components: what to save: anything with ``state_dict`` and ``load_state_dict``, its state
            tensors and JSON values; or a dict or list of JSON values, which is updated in place.

    Raises:
        ValueError: at ``keep`` below 1, or a component named ``"rng"``.

    Example:
        >>> import tempfile
        >>> model, progress = nn.Linear(2, 1), {"episodes": 10}
        >>> checkpoints = RunCheckpoints(tempfile.mkdtemp(), model=model, progress=progress)
        >>> checkpoints.save(3).name
        'checkpoint-000000000003.torchrl'
        >>> progress["episodes"] = 99
        >>> checkpoints.load()
        3
        >>> progress
        {'episodes': 10}
    """

    def __init__(self, folder: str | Path, keep: int = 2, **components: Any) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}, expected 1 or more.")
        if RNG in components:
            raise ValueError(f"The component name {RNG!r} is taken by the random generators.")
        self.folder = Path(folder)
        self._rotation = CheckpointRotation(self.folder, keep_last=keep, prefix=PREFIX)
        self._checkpoint = Checkpoint(format="directory")
        self._known_whole: set[Path] = set()
        for name, component in {**components, RNG: _RNGState()}.items():
            self._checkpoint.register(name, component, adapter=_adapter(component))

    def files(self) -> list[Path]:
        """The checkpoint files, oldest first, damaged ones included."""
        return sorted(self.folder.glob(f"{PREFIX}-*{SUFFIX}"))

    def clear(self) -> None:
        """Remove what a killed :meth:`save` left, and checkpoints beyond ``keep``.

        A run that goes on calls it, since it may have nothing left to save. A damaged checkpoint
        gets the suffix ``.damaged`` and counts no more.
        """
        clear_leftovers(self.folder)
        for file in self.files():
            if file.absolute() in self._known_whole:
                continue
            if damage := _damage(file):
                logger.warning("%s is set aside as .damaged: %s", file, damage)
                os.replace(file, file.with_suffix(".damaged"))
            else:
                self._known_whole.add(file.absolute())
        self._rotation.prune()

    def save(self, step: int) -> Path:
        """Write a checkpoint and remove those beyond ``keep``.

        Args:
            step: the number of finished iterations; higher than in any checkpoint of the folder.

        Returns:
            The file.

        Raises:
            ValueError: where the folder has a checkpoint of this step or a later one.
            FloatingPointError: where a parameter is not finite, or any other tensor has a NaN;
                nothing is written, so that the last sound checkpoint stays the newest.
            CheckpointError: where a component is of a kind that :meth:`load` would refuse; nothing
                is written.
            OSError: where the disk is full; the error names the file.
        """
        for component, module in self._checkpoint.components.items():
            if isinstance(module, nn.Module):
                check_finite_weights(module.named_parameters(), f"component {component!r}")
        self.clear()
        newest = self._rotation.latest()
        if newest is not None and step <= _step(newest):
            raise ValueError(
                f"{self.folder} has a checkpoint of step {_step(newest)}, so step {step} would "
                "overwrite it or be removed as the older one: use another folder."
            )
        shapes = _shapes(self._checkpoint.components)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{PREFIX}-{step:012d}{SUFFIX}"
        folder = NewFolder(file, "checkpoints")
        try:
            with name_in_errors(f"Cannot write {file}"):
                self._checkpoint.save(folder.hidden / "parts", metadata={SHAPES: shapes})
                _pack(folder.hidden / "parts", folder.hidden / file.name)
            with zipfile.ZipFile(folder.hidden / file.name) as archive:
                if foreign := foreign_parts(archive):
                    raise UnusableCheckpointError(
                        f"{file} could not be loaded again: {'; '.join(foreign)}."
                    )
            folder.publish(file.name)
        finally:
            folder.discard()
        self._rotation.prune()
        self._known_whole.add(file.absolute())
        return file

    def load(
        self, path: str | Path = "latest", *, components: Collection[str] | None = None
    ) -> int:
        """Restore the components, or some of them. No pickle is read and no code is run.

        Args:
            path: a checkpoint file, or ``"latest"``: the newest one in the folder that is whole;
                each damaged one on the way is named in a warning.
            components: the names to restore, such as ``["actor"]`` for an evaluation; None restores
                all of them and the random generators.

        Returns:
            The step that was given to :meth:`save`.

        Raises:
            FileNotFoundError: where there is no whole checkpoint.
            CheckpointError: where the components have other names, parameters or shapes than those
                saved, all of them listed and nothing restored; or where a component that is no
                module refuses its state.
        """
        file = self._newest_whole() if path == "latest" else Path(path)
        if path != "latest" and (damage := _damage(file)):
            raise UnusableCheckpointError(f"{file} cannot be loaded: {damage}.")
        names = set(components) if components is not None else set(self._checkpoint.components)
        problems = self._problems(file, names)
        if problems:
            listed = "".join(f"\n  - {problem}" for problem in problems)
            raise UnusableCheckpointError(
                f"{file} does not fit this run; was it saved by another architecture or "
                f"configuration?{listed}"
            )
        with temporary_folder() as folder, zipfile.ZipFile(file) as archive:
            with name_in_errors(f"Cannot unpack {file} to {folder}"):
                archive.extractall(folder)
            self._checkpoint.load(folder, components=names, map_location="cpu")
        return _step(file)

    def _newest_whole(self) -> Path:
        files = self.files()
        for file in reversed(files):
            damage = _damage(file)
            if not damage:
                self._known_whole.add(file.absolute())
                return file
            logger.warning("%s is passed over: %s", file, damage)
        state = f"all {len(files)} checkpoints are damaged" if files else "there is none"
        raise FileNotFoundError(f"No checkpoint to load in {self.folder}: {state}.")

    def _problems(self, file: Path, names: set[str]) -> list[str]:
        manifest = Checkpoint.manifest(file)
        saved: Shapes = manifest["metadata"].get(SHAPES, {})
        problems = [
            f"component '{name}': not in the checkpoint, which has {sorted(manifest['components'])}"
            for name in sorted(names.difference(manifest["components"]))
        ]
        for name, live in _shapes(self._checkpoint.components).items():
            if name in names and name in saved:
                problems += _differences(name, saved[name], live)
        return problems


class _Reserving(StateDictCheckpointAdapter):
    """Refuses NaN, and reserves the files: a mapped write to a full disk would kill the process."""

    def save(
        self, component: Any, path: Path, *, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        state = component.state_dict(*args, **kwargs)
        tensors: dict[str, Tensor] = {}
        _encode_state_dict_value(state, tensors)
        for name, value in tensors.items():
            if value.is_floating_point() and bool(value.isnan().any()):
                raise FloatingPointError(
                    f"the tensor {path.name}/{name} has a NaN, so that no checkpoint is written: "
                    "go on from an earlier one."
                )
        folder = path / self.state_directory
        folder.mkdir(parents=True)
        check_space(folder, sum(value.nbytes for value in tensors.values()))
        for name, value in tensors.items():
            if value.numel():
                with (folder / f"{name}.memmap").open("wb") as file:
                    reserve(file, value.nbytes)
        return super().save(_Given(state), path, args=(), kwargs={})


def _pack(parts: Path, file: Path) -> None:
    """Make an archive of a checkpoint's folder, without what differs from time to time."""
    manifest = Checkpoint.manifest(parts)
    del manifest["checkpoint_id"], manifest["created_at"]
    manifest["container"] = "archive"
    write_text(parts / MANIFEST, json.dumps(manifest, indent=2))
    sources = sorted(source for source in parts.rglob("*") if source.is_file())
    check_space(parts, sum(source.stat().st_size for source in sources))
    with zipfile.ZipFile(file, "w") as archive:
        for source in sources:
            member = zipfile.ZipInfo(source.relative_to(parts).as_posix())  # dated 1980
            member.file_size = source.stat().st_size
            with source.open("rb") as content, archive.open(member, "w") as packed:
                shutil.copyfileobj(content, packed)


class _Given:
    """A component whose state was taken already."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def state_dict(self) -> Any:
        return self._state


def _adapter(component: Any) -> StateDictCheckpointAdapter | None:
    """Ours where TorchRL would choose the one for states, None for its own choice."""
    own = all(callable(getattr(component, name, None)) for name in ("dump", "load"))
    return _Reserving() if hasattr(component, "state_dict") and not own else None


class _RNGState(GlobalRNGState):
    """Loads on a machine with other CUDA devices too, without the states of theirs."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        state = dict(state_dict)
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        saved = len(state.get("torch_cuda", ()))
        if saved not in (0, devices):
            logger.warning(
                "The checkpoint has the random states of %d CUDA devices and this machine has %d: "
                "they are left out",
                saved,
                devices,
            )
            del state["torch_cuda"]
        super().load_state_dict(state)


def _step(file: Path) -> int:
    return int(file.stem.removeprefix(f"{PREFIX}-"))


def _damage(file: Path) -> str | None:
    """What is wrong with the bytes of an archive, None if nothing is."""
    if not file.is_file():
        return "it does not exist"
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.testzip()
            Checkpoint.manifest(file)
            if member is None and (foreign := foreign_parts(archive)):
                return f"it is no checkpoint of this library: {'; '.join(foreign)}"
            if member is None and (tensor := tensor_with_nan(archive)):
                return f"its tensor {tensor} has a NaN"
    except _UNREADABLE as error:
        return f"it is truncated or no checkpoint ({error})"
    return f"its part {member} is damaged" if member else None


def _shapes(components: Mapping[str, Any]) -> Shapes:
    modules = {name: each for name, each in components.items() if isinstance(each, nn.Module)}
    free = {name: _of_any_shape(module) for name, module in modules.items()}
    return {
        name: {
            key: None if key in free[name] else list(value.shape)
            for key, value in module.state_dict().items()
            if isinstance(value, Tensor)
        }
        for name, module in modules.items()
    }


def _of_any_shape(component: nn.Module) -> set[str]:
    """The buffers that take the shape of what is loaded, as a module's ``ANY_SHAPE`` says."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, module in component.named_modules()
        for name in getattr(module, "ANY_SHAPE", ())
    }


def _differences(
    name: str, saved: Mapping[str, list[int] | None], live: Mapping[str, list[int] | None]
) -> list[str]:
    lines = [
        f"'{key}' has shape {saved[key]} in the checkpoint, {live[key]} here"
        for key in live
        if key in saved and live[key] is not None and saved[key] != live[key]
    ]
    lines += [f"'{key}' is missing in the checkpoint" for key in live if key not in saved]
    lines += [f"'{key}' is in the checkpoint only" for key in saved if key not in live]
    if len(lines) > MAX_LISTED:
        lines = [*lines[:MAX_LISTED], f"{len(lines) - MAX_LISTED} more"]
    return [f"component '{name}': {line}" for line in lines]
