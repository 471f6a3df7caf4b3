"""Run a frozen image tower once per frame and keep what it says."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import torch
from filelock import FileLock
from tensordict import MemoryMappedTensor, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from rftf_torchrl import keys
from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.rows_file import RowsFile
from rftf_torchrl.values.pretrained.network import PretrainedNetwork
from rftf_torchrl.values.temporal_value import TemporalValueModel


@nested_keys
def on_cached_features(
    model: TemporalValueModel, *, features_key: NestedKey = keys.IMAGE_FEATURES
) -> TemporalValueModel:
    """The same value model, reading the features of a frame instead of the image.

    Network and calibration are shared: what one learns, the other knows. Save the original, which
    reads images.

    Args:
        model: a value model on a pretrained image tower that is frozen.
        features_key: where :func:`cache_image_features` wrote the features.

    Returns:
        The model of the features.

    Raises:
        ValueError: if the model has no frozen image tower.
    """
    _frozen_network(model)
    view = TemporalValueModel(
        model.network,
        in_keys=[features_key, *model.network_keys[1:]],
        tokens_key=model.tokens_key,
        out_key=model.out_keys[0],
        config=model.config,
    )
    view.calibration = model.calibration
    return view


@torch.no_grad()
@nested_keys
def cache_image_features(
    model: TemporalValueModel,
    tensordict: TensorDictBase,
    *,
    features_key: NestedKey = keys.IMAGE_FEATURES,
    minibatch: int = 256,
    dtype: torch.dtype = torch.float16,
) -> TensorDictBase:
    """Writes the features of every frame, at the root and under ``"next"`` where it has images.

    A next frame that is the frame of the following row is not evaluated again, so a trajectory of
    T transitions costs T + 1 evaluations. Neither image augmentation nor the value loss can reach
    a tower whose features are cached.

    Args:
        model: a value model on a pretrained image tower that is frozen.
        tensordict: frames or transitions, any batch size, with the model's image.
        features_key: where the features go, [*B, P, D].
        minibatch: frames in one forward.
        dtype: of the features; half precision takes 2 P D bytes per frame.

    Returns:
        The same tensordict.

    Raises:
        ValueError: if the model has no frozen image tower, or a feature does not fit the dtype.
        KeyError: if there is no image.

    Examples:
        >>> _ = __import__("pytest").importorskip("transformers")
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import PretrainedEncoderConfig, temporal_value_model
        >>> tower = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1}
        >>> tower |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        >>> model = temporal_value_model(PretrainedEncoderConfig(tower, image_size=28))
        >>> image = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
        >>> frames = TensorDict({"observation": {"image": image}}, [6])
        >>> cache_image_features(model, frames)["features", "image"].shape
        torch.Size([6, 5, 16])
    """
    network, image = _frozen_network(model), _images(model, tensordict)
    batch = tensordict.batch_size
    flat = image.reshape(-1, *image.shape[-3:])
    with eval_mode(network):
        features = _features(network, flat, minibatch, dtype)
        tensordict.set(features_key, features.reshape(*batch, *features.shape[1:]))
        following = tensordict.get("next", None)
        later = None if following is None else following.get(model.in_keys[0], None)
        if following is not None and later is not None:
            later = later.reshape(-1, *image.shape[-3:])
            repeated = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
            repeated[:-1] = (later[:-1] == flat[1:]).flatten(1).all(1)
            found = features.roll(-1, 0)
            fresh = (~repeated).nonzero().squeeze(-1)
            found[fresh] = _features(network, later[fresh], minibatch, dtype)
            following.set(features_key, found.reshape(*batch, *found.shape[1:]))
    return tensordict


@torch.no_grad()
@nested_keys
def keep_image_features(
    model: TemporalValueModel,
    frames: TensorDictBase,
    folder: str | Path,
    *,
    features_key: NestedKey = keys.IMAGE_FEATURES,
    minibatch: int = 256,
    dtype: torch.dtype = torch.float16,
) -> TensorDictBase:
    """Keeps the features of every frame on the disk, where frames are too many for the memory.

    One minibatch is in memory at a time. A call that was killed continues where it stopped.
    Features of another encoder, or of other frames, are computed again.

    Args:
        model: a value model on a pretrained image tower that is frozen.
        frames: frames [N] with the model's image.
        folder: the folder of the features; one process at a time may write it.
        features_key: where the features go, [N, P, D].
        minibatch: frames in one forward.
        dtype: of the features.

    Returns:
        The frames with their features, memory-mapped; the frames given are not changed.

    Raises:
        ValueError: if the model has no frozen image tower, or a feature does not fit the dtype.
        KeyError: if there is no image.

    Examples:
        >>> _ = __import__("pytest").importorskip("transformers")
        >>> import tempfile
        >>> from tensordict import TensorDict
        >>> from rftf_torchrl import PretrainedEncoderConfig, temporal_value_model
        >>> tower = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1}
        >>> tower |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
        >>> model = temporal_value_model(PretrainedEncoderConfig(tower, image_size=28))
        >>> image = torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
        >>> frames = TensorDict({"observation": {"image": image}}, [6])
        >>> keep_image_features(model, frames, tempfile.mkdtemp())["features", "image"].shape
        torch.Size([6, 5, 16])
    """
    network, image = _frozen_network(model), _images(model, frames)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_of = [network.config.to_dict(), str(dtype), minibatch, len(image)]
    name = _fingerprint(json.dumps(made_of), network.image, *image.split(minibatch))
    with eval_mode(network), FileLock(folder / f".{name}.lock"):
        first = _features(network, image[:1], minibatch, dtype)[0]
        rows = RowsFile(folder / name)
        for piece in image.split(minibatch)[len(rows.records) :]:
            features = _features(network, piece, minibatch, dtype)
            rows.append(features.view(torch.uint8).numpy().data.cast("B"), {})
    found = MemoryMappedTensor.from_filename(rows.file, dtype, (len(image), *first.shape))
    return frames.copy().unlock_().set(features_key, found)


def _fingerprint(made_of: str, tower: nn.Module, *pictures: Tensor) -> str:
    """A name that another tower or other images would change."""
    digest = sha256(made_of.encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for picture in pictures:
        digest.update(picture.contiguous().flatten().numpy().data)
    return digest.hexdigest()[:16]


def _frozen_network(model: TemporalValueModel) -> PretrainedNetwork:
    network = model.network
    if not isinstance(network, PretrainedNetwork):
        raise ValueError(
            "only a value model on a pretrained image tower has features to cache, got the network "
            f"{type(network).__name__}: build it by temporal_value_model(PretrainedEncoderConfig)."
        )
    if network.config.image_training != "frozen":
        raise ValueError(
            "the features of an image tower that is trained go stale: image_training is "
            f"{network.config.image_training!r}, expected 'frozen'."
        )
    return network


def _images(model: TemporalValueModel, tensordict: TensorDictBase) -> Tensor:
    image: Tensor | None = tensordict.get(model.in_keys[0], None)
    if image is None:
        raise KeyError(f"there is no image at {model.in_keys[0]!r} to take features of.")
    return image


def _features(
    network: PretrainedNetwork, image: Tensor, minibatch: int, dtype: torch.dtype
) -> Tensor:
    device = network.head.weight.device
    pieces = [
        network.image(piece.to(device)).to(image.device, dtype) for piece in image.split(minibatch)
    ]
    features = torch.cat(pieces)
    if not features.isfinite().all():
        raise ValueError(f"a feature does not fit {dtype}: pass dtype=torch.float32.")
    return features
