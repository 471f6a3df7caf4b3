"""Read what the earlier stages of a run have made."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.data.demonstrations import Demonstrations, load_demonstrations
from rftf_torchrl.nets.sizes import ObservationSizes
from rftf_torchrl.values.kinds import value_spec_class
from rftf_torchrl.values.specs import build_value_model
from rftf_torchrl.values.temporal_value import TemporalValueModel


def whole_demos(config: RunConfig) -> Demonstrations:
    """The demonstrations of a recording that was not interrupted."""
    found = load_demonstrations(config.folder.demonstrations)
    if not found.complete:
        raise ValueError(
            f"{found.root} holds the {len(found.episodes)} episodes of a recording that stopped "
            "early. Move or remove the folder, and it is recorded anew; or, to use what there is, "
            'write "complete": true in its demonstrations.json'
        )
    return found


def needs_file(config: RunConfig) -> bool:
    """Whether the value model is trained, and so comes from a file."""
    return bool(getattr(value_spec_class(config.value.kind), "trained", True))


def load_value_model(config: RunConfig, state_dim: int | None = None) -> TensorDictModuleBase:
    """The value model that was trained, by its file's kind, or one that needs no training."""
    if needs_file(config):
        return TemporalValueModel.load(config.folder.value_model)
    sizes = ObservationSizes(config.env.image_size, state_dim)
    return build_value_model(config.value.kind, config.value.options, sizes)
