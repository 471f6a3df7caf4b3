"""Read what the earlier stages of a run have made."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase

from rftf_torchrl import keys
from rftf_torchrl.configs.record import environment, refuse_changes
from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.data.demonstrations import Demonstrations, load_demonstrations
from rftf_torchrl.data.readers.importing import import_videos
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.values.kinds import value_spec_class
from rftf_torchrl.values.specs import build_value_model
from rftf_torchrl.values.temporal_value import TemporalValueModel


def whole_demos(config: RunConfig) -> Demonstrations:
    """The demonstrations of a recording that was not interrupted.

    Raises:
        ConfigError: where they were recorded in another environment, or without a task of the run.
        FileNotFoundError: where there are none.
    """
    root = config.folder.demonstrations
    if not root.exists():
        raise FileNotFoundError(
            f"there are no demonstrations in {root}: record them first with rftf collect-demos and "
            "the same settings, or give a folder by demos.path"
        )
    found = load_demonstrations(root)
    if not found.complete:
        raise ValueError(
            f"{found.root} holds the {len(found.episodes)} episodes of a recording that stopped "
            "early. Move or remove the folder, and it is recorded anew; or, to use what there is, "
            'write "complete": true in its demonstrations.json'
        )
    image = found.frames.get(keys.IMAGE, None)
    recorded = {
        "simulator": found.simulator,
        "env.image_size": None if image is None else image.shape[-1],
        "simulator steps per action": found.action_repeat,
    }
    advice = "record others in another folder (demos.path), or give the settings of these"
    refuse_changes(f"{root}", recorded, environment(config), (), advice)
    missing = set(config.env.tasks) - {task.name for task in found.tasks}
    if missing:
        raise ConfigError(
            f"{root} has no demonstrations of {', '.join(sorted(missing))}: record them in another "
            "folder (demos.path), or leave the tasks out of env.tasks"
        )
    return found


def training_data(config: RunConfig) -> Demonstrations:
    """What the value model learns from: data from outside, or the simulator's demonstrations.

    Raises:
        ValueError: as :func:`import_videos` and :func:`whole_demos` do.
        FileNotFoundError: where there are none.
    """
    if config.data.path is None:
        return whole_demos(config)
    return import_videos(config.data, config.folder.data)


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
