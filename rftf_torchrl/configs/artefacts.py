"""Read what the earlier stages of a run have made."""

from __future__ import annotations

import json
from pathlib import Path

from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import keys
from rftf_torchrl.configs.record import environment, refuse_changes, refuse_other_environment
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.data.demonstrations import Demonstrations, load_demonstrations
from rftf_torchrl.data.format import INDEX_FILE, index_file
from rftf_torchrl.data.readers.importing import SIMULATOR as IMPORTED
from rftf_torchrl.data.readers.importing import import_videos
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.optional import optional_module
from rftf_torchrl.policies.spec import spec_class
from rftf_torchrl.values.kinds import value_spec_class
from rftf_torchrl.values.specs import build_value_model
from rftf_torchrl.values.temporal_value import TemporalValueModel


def whole_demos(config: RunConfig) -> Demonstrations:
    """The run's tasks' demonstrations of a recording that was not interrupted.

    Raises:
        ConfigError: where they were recorded in another environment, or without a task of the run.
        FileNotFoundError: where there are none; names the command that records them.
    """
    need(config, demos=True)
    root = config.folder.demonstrations
    found = load_demonstrations(root, validate=config.demos.validate)
    if not found.complete:
        raise ValueError(
            f"{found.root} holds the {len(found.episodes)} episodes of a recording that stopped "
            "early. Move or remove the folder, and it is recorded again (resume=true does it where "
            "the folder is the run's own); or, to use what there is, write "
            '"complete": true in its demonstrations.json, and remove its digests.json'
        )
    if found.simulator == IMPORTED:
        raise ConfigError(
            f"{root} holds the frames of data from outside, without actions and states: they train "
            "a value model alone (data=...); give demonstrations with actions as demos.path"
        )
    image = found.frames.get(keys.IMAGE, None)
    recorded = {
        "simulator": found.simulator,
        "env.image_size": None if image is None else image.shape[-1],
        "simulator steps per action": found.action_repeat,
    }
    advice = "record others in another folder (demos.path), or give the settings of these"
    refuse_changes(f"{root}", recorded, environment(config), (), advice)
    handed = sum(episode.takeover > 0 for episode in found.episodes)
    if handed and config.demos.takeover is None:
        raise ConfigError(
            f"in {handed} of {len(found.episodes)} demonstrations of {root} the expert took over "
            "from a policy: give that policy's file as demos.takeover, or record others in another "
            "folder (demos.path)"
        )
    missing = set(config.env.tasks) - {task.name for task in found.tasks}
    if missing:
        raise ConfigError(
            f"{root} has no demonstrations of {', '.join(sorted(missing))}: record them in another "
            "folder (demos.path), or leave the tasks out of env.tasks"
        )
    return found.select(config.env.tasks)


def training_data(config: RunConfig) -> Demonstrations:
    """What the value model learns from: data from outside, or the simulator's demonstrations.

    Raises:
        ValueError: as :func:`import_videos` and :func:`whole_demos` do.
        FileNotFoundError: where there are none.
    """
    if config.data.path is None:
        return whole_demos(config)
    return import_videos(config.data, config.folder.data)


def need(
    config: RunConfig,
    *,
    demos: bool = False,
    policy: bool = False,
    value_model: bool = False,
    any_size: bool = False,
) -> None:
    """Stop if the result of an earlier stage is missing, or was made in another environment.

    With ``any_size`` the environment of a value model is not compared.

    Raises:
        FileNotFoundError: where it is missing; names the command that makes it.
        ConfigError: where a policy or a value model was trained in another environment.
    """
    folder = config.folder
    root = folder.demonstrations
    if demos and not root.exists():
        first = _first(config, "record them", "collect-demos", "demos.path=<folder>")
        raise FileNotFoundError(f"there are no demonstrations in {root}: {first}")
    if demos and not index_file(root).is_file():
        raise FileNotFoundError(
            f"{root} holds no demonstrations, as it has no {INDEX_FILE}: give their folder by "
            "demos.path=<folder>, or another output=<folder> in which to record some"
        )
    if policy:
        _need_file(config, folder.policy, "policy", "clone one", "train-bc")
    if value_model and needs_file(config):
        file = folder.value_model
        _need_file(config, file, "value model", "train one", "train-value", compare=not any_size)


def _need_file(
    config: RunConfig, file: Path, what: str, make: str, command: str, *, compare: bool = True
) -> None:
    setting = f"{what.split()[0]}.path"
    if file.is_dir():
        raise FileNotFoundError(
            f"{file} is a folder: give the file of a {what} by {setting}=<file>"
        )
    if not file.exists():
        first = _first(config, make, command, f"{setting}=<file>")
        raise FileNotFoundError(f"there is no {what} at {file}: {first}")
    if compare:
        refuse_other_environment(config, file, setting)


def need_pretrained(config: RunConfig, *, policy: bool = True) -> None:
    """Stop where a pretrained model that the run will read is in no folder and on no hub.

    With ``policy=False`` the value model's alone is looked for.

    Raises:
        ConfigError: where one is not found.
    """
    asked, value = config.policy, config.value
    looked_for = getattr(spec_class(asked.kind), "pretrained_on", None)
    weights = asked.pretrained if policy and looked_for else None
    option = getattr(value_spec_class(value.kind), "pretrained_option", "")
    model = value.options.get(option)
    for setting, source, given, made in (
        ("policy.pretrained", weights, asked.path, config.folder.policy),
        (f"value.options.{option}", model, value.path, config.folder.value_model),
    ):
        kept = given is not None or (config.resume and made.is_file())
        if source is None or kept or Path(source).exists():
            continue
        if setting == "policy.pretrained" and looked_for == "disk":
            raise ConfigError(f"{setting}={source}: there is no such file or folder")
        hub = optional_module("huggingface_hub", "video", f"a model of the hub ({setting})")
        try:
            hub.hf_hub_download(source, "config.json")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{setting}={source}: there is no such folder, and it is not on the hub or in its "
                f"cache ({' '.join(str(error).split())})"
            ) from error


def refuse_to_overwrite(
    config: RunConfig, results: Path, key: str, name: str, settings: str
) -> None:
    """Stop where results are of another file than this run's.

    Args:
        config: the run.
        results: the earlier ones, JSON.
        key: whose value names what they are of. An older version's name starts at the folder in
            which it was called.
        name: of what this run's would be, as :func:`name_of` gives it.
        settings: what else to give with another output folder.

    Raises:
        FileExistsError: if they are.
    """
    if not results.is_file():
        return
    try:
        earlier = str(json.loads(results.read_text(encoding="utf-8"))[key])
    except (ValueError, KeyError):
        earlier = f"an unknown {key.replace('_', ' ')}"
    of, now = (
        {each, Path(each).resolve(), Path(config.output, each).resolve()}
        for each in (earlier, name)
    )
    if not of & now:
        raise FileExistsError(
            f"{results} is of {earlier} and would be overwritten: move {results.parent} away, or "
            f"give another output=<folder>, with {settings}"
        )


def _first(config: RunConfig, make: str, command: str, setting: str) -> str:
    return (
        f"{make} first by rftf {command} output={config.output} with the same settings, or give "
        f"{setting}"
    )


def needs_file(config: RunConfig) -> bool:
    """Whether the value model is trained, and so comes from a file."""
    return bool(getattr(value_spec_class(config.value.kind), "trained", True))


def load_value_model(config: RunConfig, state_dim: int | None = None) -> TensorDictModuleBase:
    """The value model that was trained, by its file's kind, or one that needs no training.

    Raises:
        FileNotFoundError: where there is none.
    """
    if needs_file(config):
        file = config.folder.value_model
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no value model {file}: train one with rftf train-value, or give a file "
                "by value.path"
            )
        return TemporalValueModel.load(file, kind=config.value.kind)
    sizes = ObservationSizes(config.image_size, state_dim)
    return build_value_model(config.value.kind, config.value.options, sizes)


def shown_as_trained(config: RunConfig, model: TensorDictModuleBase) -> dict[str, int]:
    """How a video is shown to a value model: as when it was trained, else as ``data`` says.

    Returns:
        ``image_size`` and ``max_words``, as :class:`VideoValues` takes them.
    """
    trained = model if isinstance(model, TemporalValueModel) else None
    return {
        "image_size": (trained and trained.image_size) or config.data.image_size,
        "max_words": (trained and trained.max_words) or config.data.max_words,
    }
