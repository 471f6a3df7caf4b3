"""The last observations of an episode as tensors that travel with the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.transforms import Transform

from rftf_torchrl.keys import nested_keys
from rftf_torchrl.nets.autoreset import like, reset_where_asked
from rftf_torchrl.nets.entries import required, state_and_observation


class ObservationHistory(Transform):
    """Writes the last observations beside the present one, oldest first.

    The window of step t + 1 is made from that of step t, which is in the data, and the new
    observation. The transform itself stores nothing. So it restarts with each episode, separately
    for each environment of a batch, in worker processes, too. What is not there
    yet is zero, at the end of the window.

    Unlike :class:`torchrl.envs.transforms.CatFrames`, it keeps no buffers, does not repeat the
    first frame, and says which entries are real.

    Args:
        length: observations in a window, the present one counted.
        windows: where the window of each entry goes: ``{entry: window}``. Entries are
            [*B, *shape], windows [*B, length, *shape], of the same dtype.
        valid_key: where it is written which observations are there, bool [*B, length].

    Raises:
        ValueError: if the length is below 1 or there is no entry.
        KeyError: on use, if the environment or the data lack an entry.

    Examples:
        >>> from torchrl.envs import ToyVLAEnv, TransformedEnv
        >>> history = ObservationHistory(3, {("observation", "state"): "seen"}, valid_key="valid")
        >>> env = TransformedEnv(ToyVLAEnv(), history)
        >>> env.rollout(4)["valid"].int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [1, 1, 1],
                [1, 1, 1]], dtype=torch.int32)
    """

    @nested_keys
    def __init__(
        self,
        length: int,
        windows: Mapping[NestedKey, NestedKey],
        *,
        valid_key: NestedKey = ("vla_inputs", "valid"),
    ) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1 observation, got {length}.")
        if not windows:
            raise ValueError("windows is empty: name at least one entry.")
        super().__init__(in_keys=list(windows), out_keys=[*windows.values(), valid_key])
        self.length = length

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        valid = torch.zeros(
            *tensordict_reset.batch_size,
            self.length,
            dtype=torch.bool,
            device=tensordict_reset.device,
        )
        valid[..., 0] = True
        for key, out_key in zip(self.in_keys, self.out_keys, strict=False):
            entry = _entry(tensordict_reset, key)
            batch = tensordict_reset.batch_dims
            window = entry.new_zeros(*entry.shape[:batch], self.length, *entry.shape[batch:])
            window.select(batch, 0).copy_(entry)
            tensordict_reset.set(out_key, window)
        return tensordict_reset.set(self.out_keys[-1], valid)

    def _reset_on_native_autoreset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return reset_where_asked(self, tensordict, tensordict_reset)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        why = (
            " from the step's input, so the history cannot be continued: pass on all entries that "
            "the reset or the last step returned."
        )
        valid = required(tensordict, self.out_keys[-1], why)
        full = valid[..., -1]
        slot = torch.where(full, self.length - 1, valid.sum(-1))
        new = torch.arange(self.length, device=valid.device) == slot[..., None]
        for key, out_key in zip(self.in_keys, self.out_keys, strict=False):
            entry = _entry(next_tensordict, key)
            batch = next_tensordict.batch_dims
            window = tensordict.get(out_key)
            window = torch.where(like(full[..., None], window), window.roll(-1, batch), window)
            next_tensordict.set(
                out_key, torch.where(like(new, window), entry.unsqueeze(batch), window)
            )
        return next_tensordict.set(self.out_keys[-1], valid | new)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Leaves data that hold windows as they are.

        Raises:
            KeyError: if they hold none: rows alone do not tell what came before them, see
                :meth:`windows_of`.
        """
        missing = [key for key in self.out_keys if tensordict.get(key, None) is None]
        if missing:
            raise KeyError(
                f"the data hold no {missing[0]!r}, and single rows do not tell what came before "
                "them: collect through the environment's transform, or take windows from "
                "recordings with windows_of(frames, frame, start)."
            )
        return tensordict

    def windows_of(self, frames: TensorDictBase, frame: Tensor, start: Tensor) -> TensorDict:
        """Windows of recorded episodes, as the environment would have written them.

        Args:
            frames: recorded frames in order of time, batch [N].
            frame: int64 [M], the frame at which each window ends.
            start: int64 [M], the first frame of its episode.

        Returns:
            TensorDict [M] with the windows and which observations are there.

        Raises:
            ValueError: if a frame is before the start of its episode.
        """
        if bool((frame < start).any()):
            row = int((frame < start).nonzero()[0])
            raise ValueError(
                f"frame {int(frame[row])} (row {row}) is before its episode's start "
                f"{int(start[row])}."
            )
        count = (frame - start + 1).clamp(max=self.length)
        place = torch.arange(self.length, device=frame.device)
        valid = place < count[:, None]
        index = torch.minimum((frame - count + 1)[:, None] + place, frame[:, None])
        found = TensorDict({self.out_keys[-1]: valid}, [len(frame)])
        for key, out_key in zip(self.in_keys, self.out_keys, strict=False):
            window = torch.unflatten(_entry(frames, key)[index.flatten()], 0, index.shape)
            found.set(out_key, torch.where(like(valid, window), window, torch.zeros_like(window)))
        return found

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Adds the windows."""
        return self._add_windows(observation_spec, observation_spec)

    def transform_input_spec(self, input_spec: Composite) -> Composite:
        """Declares the windows as state, so that every kind of environment passes them on."""
        input_spec["full_state_spec"] = self._add_windows(*state_and_observation(self, input_spec))
        return input_spec

    def _add_windows(self, spec: Composite, observed: Composite) -> Composite:
        names = list(observed.keys(True, True))
        batch = spec.shape
        for key, out_key in zip(self.in_keys, self.out_keys, strict=False):
            if key not in names:
                raise KeyError(
                    f"the environment writes no {key!r}, which the policy looks back on; it writes "
                    f"{_listed(names)}. Switch that camera on, or build the policy without it."
                )
            entry = observed[key]
            shape = (*batch, self.length, *entry.shape[len(batch) :])
            spec[out_key] = _spec(shape, entry)
        spec[self.out_keys[-1]] = Binary(
            shape=(*batch, self.length), dtype=torch.bool, device=spec.device
        )
        return spec


def _entry(tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    entry: Tensor | None = tensordict.get(key, None)
    if entry is None:
        raise KeyError(
            f"{key!r} is missing, so its history cannot be written; there are "
            f"{_listed(tensordict.keys(True, True))}."
        )
    return entry


def _listed(names: Iterable[NestedKey]) -> str:
    return ", ".join(sorted(map(str, names)))


def _spec(shape: tuple[int, ...], entry: TensorSpec) -> TensorSpec:
    if entry.dtype == torch.uint8:
        return Bounded(0, 255, shape=shape, dtype=torch.uint8, device=entry.device)
    return Unbounded(shape=shape, dtype=entry.dtype, device=entry.device)
