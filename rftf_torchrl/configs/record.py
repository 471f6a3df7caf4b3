"""Settings that made something, kept with it, and compared with the settings of a later run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rftf_torchrl.configs.schema import RunConfig, ValueConfig
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.data.demonstrations import Demonstrations
from rftf_torchrl.envs.simulator import make_simulator, simulator_class
from rftf_torchrl.weights_file import read_made_by

logger = logging.getLogger("record")

MAY_CHANGE = (
    "output",
    "resume",
    "baseline",
    "threads",
    "device",
    "logger",
    "collector",
    "evaluation",
    "ppo.shard",
    "demos.validate",
    "annotate",
    "watch",
    "check",
    "bench",
    "ppo.iterations",
    "ppo.env_steps",
    "ppo.checkpoint_every",
    "ppo.micro_batch",
    "ppo.cache_gib",
    "ppo.ratio_bound",
)
"""The settings that a resumed run may change: where it runs, how long, and what is looked at."""

RECORDING = ("seed", "env", "demos")
"""What decides demonstrations."""

CLONING = (
    *("seed", "env", "demos", "policy", "cloning", "augment", "precision"),
    "ppo.max_grad_norm",
)
"""What decides a cloned policy."""

_POLICY_OPTIONS = "policy.options."
_VALUE = tuple(f"value.{x.name}" for x in fields(ValueConfig) if x.name != "refresh_steps")

VALUE = (*CLONING, "data", *_VALUE, "ppo.tasks")
"""What decides a value model; the cloned policy plays its rollouts."""

VALUE_OF_DATA = ("seed", "data", *_VALUE, "precision", "ppo.max_grad_norm")
"""What decides a value model that learned from data from outside."""

TRAINED_ON = "data: training episodes"
DATA_AT = "data: path"

SPLIT = ("data.kind", "data.options", "data.episodes", "data.tasks", "data.held_out")
"""What decides which episodes of data from outside are held out."""

_PATHS = ("demos.path", "demos.takeover", "policy.path", "value.path", "data.cache")

RUN = tuple(field.name for field in fields(RunConfig))
"""All settings."""


def made_by(config: RunConfig, parts: Collection[str]) -> dict[str, Any]:
    """The settings that decide an artefact.

    Args:
        config: the run that makes it.
        parts: names of settings or of groups of settings, such as ``"seed"`` and ``"env"``.

    Returns:
        Values by full name, such as ``"env.chunk_size"``; what JSON can hold. Paths as
        :func:`name_of` has them.

    Example:
        >>> made_by(RunConfig(output="outputs/run"), ["seed", "balance"])
        {'seed': 0, 'balance.kind': 'outcome'}
    """
    flat = named(config, _flat(asdict(config)))
    return {
        name: flat[name] for part in parts for name in flat if name == part or _within(name, part)
    }


def name_of(config: RunConfig, file: str | Path) -> str:
    """A file as records name it: within the output folder from there, so that it can be moved.

    One outside has the name that was given, or its whole path if that name is one inside too.
    """
    place, root = Path(file).resolve(), Path(config.output).resolve()
    if place.is_relative_to(root):
        return str(place.relative_to(root))
    alike = root / file
    return str(place if alike != Path(file) and alike.exists() else file)


def named(config: RunConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with files and folders as :func:`name_of` names them."""
    given = [name for name in _PATHS if settings.get(name)]
    return {**settings, **{name: name_of(config, settings[name]) for name in given}}


def environment(config: RunConfig) -> dict[str, Any]:
    """What a policy or demonstrations were made in, as far as another run has to agree."""
    simulator = make_simulator(config.env)
    return {
        "simulator": simulator.kind,
        **made_by(config, ("env.chunk_size", "env.image_size")),
        "simulator steps per action": simulator.steps_per_action,
    }


def value_environment(config: RunConfig) -> dict[str, Any]:
    """What a value model was trained in: data from outside have no simulator."""
    if config.data.path is None:
        return environment(config)
    any_size = config.value.kind == "pretrained"
    return {} if any_size else {"env.image_size": config.data.image_size}


def cloned_by(config: RunConfig) -> dict[str, Any]:
    """What a cloned policy's file says of the run, and of the recording if that is the run's."""
    return made_by(config, CLONING) | environment(config) | _recorded(config)


def tuned_by(config: RunConfig) -> dict[str, Any]:
    """What decides fine-tuning; policy and value model have the options they were made with."""
    found = made_by(config, RUN)
    policy = read_made_by(config.folder.policy)
    if "policy.kind" in policy:  # else it says nothing of its options
        found = _as_made(found, policy, lambda name: name.startswith(_POLICY_OPTIONS))
    file = config.folder.value_model
    if config.reward.dense_weight and config.reward.potential == "value" and file.is_file():
        value = read_made_by(file)
        if "value.kind" in value:
            found = _as_made(found, value, _is_of_a_value_model)
    return found


def warn_of_other_options(config: RunConfig) -> None:
    """Log a warning if the policy was cloned with other options than those that are given."""
    stored = read_made_by(config.folder.policy)
    asked = {
        name: value
        for name, value in made_by(config, RUN).items()
        if name.startswith(_POLICY_OPTIONS) and stored.get(name) != value
    }
    if asked and "policy.kind" in stored:
        listed = ", ".join(f"{name}={value}" for name, value in asked.items())
        logger.warning("%s was not cloned with %s, and stays so", config.folder.policy, listed)


def _is_of_a_value_model(name: str) -> bool:
    return any(name == part or _within(name, part) for part in _VALUE if part != "value.path")


def _as_made(
    now: Mapping[str, Any], stored: Mapping[str, Any], of_the_file: Callable[[str], bool]
) -> dict[str, Any]:
    """Settings, those of a file as they were when it was made."""
    kept = {name: value for name, value in now.items() if not of_the_file(name)}
    return kept | {name: value for name, value in stored.items() if of_the_file(name)}


def _recorded(config: RunConfig) -> dict[str, Any]:
    """The settings with which the run's own demonstrations were recorded."""
    settings = recording_settings(config)
    if config.demos.path is not None or not settings.is_file():
        return {}
    earlier: Any = OmegaConf.to_container(OmegaConf.load(settings))
    flat = _flat(earlier)
    return {name: flat[name] for name in made_by(config, ["demos"]) if name in flat}


def recording_settings(config: RunConfig) -> Path:
    """The file that keeps what the recording of the run's own demonstrations was told."""
    return Path(config.output, "collect_demos.yaml")


def value_made_by(
    config: RunConfig, demonstrations: Demonstrations | None = None
) -> dict[str, Any]:
    """What a value model's file says of the run that trained it, on data from outside or not."""
    if demonstrations is None or config.data.path is None:
        return made_by(config, VALUE) | environment(config) | _recorded(config)
    trained = {
        TRAINED_ON: _trained_on(demonstrations),
        DATA_AT: str(Path(config.data.path).resolve()),
    }
    return made_by(config, VALUE_OF_DATA) | value_environment(config) | trained


def _trained_on(demonstrations: Demonstrations) -> str:
    """A fingerprint of the names of the episodes that are not held out."""
    names = sorted(str(each.source) for each in demonstrations.select(split="train").episodes)
    return sha256("\n".join(names).encode()).hexdigest()[:16]


def refuse_other_split(config: RunConfig, demonstrations: Demonstrations) -> None:
    """Stop where a value model was trained on episodes that the run would hold out of its data.

    Raises:
        ConfigError: where the model's data are the run's, and divided otherwise, or have other
            episodes than then.
    """
    file, path = config.folder.value_model, config.data.path
    if path is None or not file.is_file():
        return
    earlier = read_made_by(file)
    named = earlier.get("data.path")
    there = Path(earlier.get(DATA_AT) or named or "/").resolve() == Path(path).resolve()
    if not there and (named != path or Path(path).exists()):  # an id of a hub is in no folder
        return
    advice = "give the settings of the training, so that the same episodes are held out"
    now = made_by(config, SPLIT)
    refuse_changes(str(file), {n: earlier.get(n) for n in now}, now, (), advice)
    if TRAINED_ON not in earlier:
        logger.warning(
            "%s does not say on which episodes of %s it was trained: it may know held-out ones",
            file,
            path,
        )
    elif earlier[TRAINED_ON] != _trained_on(demonstrations):
        raise ConfigError(
            f"{path} has other episodes than when {file} was trained, so that it may have seen "
            "held-out ones: train it again, or give the data as they were"
        )


def may_change(config: RunConfig) -> tuple[str, ...]:
    """The settings that a resumed run may change, including the simulator's own."""
    own: tuple[str, ...] = getattr(make_simulator(config.env), "may_change", ())
    return (*MAY_CHANGE, *(f"env.options.{name}" for name in own))


def refuse_other_environment(config: RunConfig, file: Path, word: str) -> None:
    """Stop where a policy or a value model was trained in another environment than the run's."""
    if file.is_file():
        value = word == "value.path"
        size = read_made_by(file).get("env.image_size")
        train = "train it in this environment"
        if value and config.data.path and size:
            train = f"give data.image_size={size}"
        advice = f"{train}, or give another file by {word}"
        now = value_environment(config) if value else environment(config)
        refuse_changes(str(file), read_made_by(file), now, (), advice)


def refuse_other_recording(config: RunConfig) -> None:
    """Stop where the run's own demonstrations were recorded with other settings.

    Raises:
        ConfigError: listing every setting that differs.
    """
    settings = recording_settings(config)
    if config.demos.path is None and config.folder.demonstrations.exists() and settings.is_file():
        earlier: Any = OmegaConf.to_container(OmegaConf.load(settings))
        defaults = asdict(simulator_class(config.env.kind).Options())
        own = _flat({"env": {"options": defaults}})
        refuse_changes(
            str(config.folder.demonstrations),
            own | _flat(earlier),
            own | made_by(config, RECORDING),
            (*may_change(config), "demos.path"),
        )


def made_already(config: RunConfig, file: Path, parts: Collection[str]) -> bool:
    """Whether a resumed run finds the file of a stage that has ended.

    Raises:
        ConfigError: where it was made with other settings.
    """
    if not (config.resume and file.is_file()):
        return False
    if Path(config.output) in file.parents:
        earlier = named(config, read_made_by(file))
        refuse_changes(str(file), earlier, made_by(config, parts), may_change(config))
    return True


def refuse_changes(
    what: str,
    earlier: Mapping[str, Any],
    now: Mapping[str, Any],
    allowed: Collection[str] = MAY_CHANGE,
    advice: str = "use another output folder, or give the earlier settings",
) -> None:
    """Stop where something was made with other settings than the run has.

    Args:
        what: what was made, and where it lies.
        earlier: the settings it was made with, as :func:`made_by` gives them.
        now: those of the run. Settings of which only one side knows are passed over, so that files
            of other versions can be used; but where both have ``options``, one that only one side
            gives differs.
        allowed: names and groups that may differ.
        advice: what to do.

    Raises:
        ConfigError: listing every setting that differs, with both values.

    Example:
        >>> refuse_changes("outputs/run/rftf", {"ppo.gamma": 0.97}, {"ppo.gamma": 0.9})
        Traceback (most recent call last):
            ...
        rftf_torchrl.configs.validation.ConfigError: outputs/run/rftf was made with other settings:
          - ppo.gamma=0.97, and now 0.9
        To go on, use another output folder, or give the earlier settings.
    """
    changed = [
        f"{name}={earlier.get(name)}, and now {now.get(name)}"
        for name in {**now, **earlier}
        if _knows(earlier, name)
        and _knows(now, name)
        and earlier.get(name) != now.get(name)
        and not any(name == part or _within(name, part) for part in allowed)
    ]
    if changed:
        listed = "".join(f"\n  - {line}" for line in changed)
        raise ConfigError(f"{what} was made with other settings:{listed}\nTo go on, {advice}.")


def _knows(settings: Mapping[str, Any], name: str) -> bool:
    """Whether settings have the name, or options among which it could have been given."""
    group, given, _ = name.partition(".options.")
    options = f"{group}.options"
    among = any(other == options or _within(other, options) for other in settings)
    return name in settings or (bool(given) and among)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def _within(name: str, part: str) -> bool:
    return name.startswith(f"{part}.")
