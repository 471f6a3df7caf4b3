"""A vision-language model as a TorchRL VLA: tensors in, logits or a mean chunk out."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.modules.vla import VLAWrapperBase

from rftf_torchrl import keys
from rftf_torchrl.nets.tower_features import TowerFeatures
from rftf_torchrl.policies.transformers_vla.heads import ActionTokenHead, ChunkHead
from rftf_torchrl.policies.transformers_vla.prompt import Prompt
from rftf_torchrl.policies.transformers_vla.query_network import QueryNetwork


class QueryFeatures(TensorDictModuleBase):
    """A :class:`QueryNetwork` that reads and writes tensordicts of any batch size.

    For heads of your own, such as one for flow matching. While the vision tower does not train,
    :func:`~rftf_torchrl.cache_features` runs it once for all epochs of an update.

    Args:
        network: the network. It reads what :class:`VLAInputs` wrote and, if it has a state_dim,
            ``"state"``; its hidden states go to ``"features"``, [*B, queries, hidden_size].
    """

    def __init__(self, network: QueryNetwork) -> None:
        super().__init__()
        self.network = network
        self.observation_keys: list[NestedKey] = [
            (keys.VLA_INPUTS, name) for name in network.inputs
        ]
        if network.state_dim is not None:
            self.observation_keys.append(keys.STATE)
        self.kept = TowerFeatures(
            network.frozen_features,
            {name: (keys.VLA_INPUTS, name) for name in network.image_inputs},
            network.feature_names,
        )
        self.in_keys = [*self.observation_keys, *self.kept.out_keys]
        self.out_keys = [keys.FEATURES]

    def features(self, tensordict: TensorDictBase) -> Tensor:
        """Returns the hidden states, [*B, queries, hidden_size].

        Raises:
            KeyError: if an input is missing.
        """
        hidden: Tensor = self.network(*self._read(tensordict))
        return hidden.reshape(*tensordict.batch_size, *hidden.shape[1:])

    def prompt(self, tensordict: TensorDictBase) -> Prompt:
        """Returns what the network makes of the observation, in a flat batch."""
        return self.network.prompt(*self._read(tensordict))

    def _read(
        self, tensordict: TensorDictBase
    ) -> tuple[dict[str, Tensor], Tensor | None, dict[str, Tensor]]:
        batch = tensordict.batch_size
        found = []
        for key in self.observation_keys:
            entry = tensordict.get(key, None)
            if entry is None:
                raise KeyError(
                    f"{key!r} is missing, and the policy reads it: append its "
                    "observation_transform() to the environment, and call it on demonstrations."
                )
            found.append(entry.reshape(batch.numel(), *entry.shape[len(batch) :]))
        named = dict(zip(self.network.inputs, found, strict=False))
        state = found[-1] if self.network.state_dim is not None else None
        return named, state, self.kept.cached(tensordict)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Writes the hidden states."""
        return tensordict.set(self.out_keys[0], self.features(tensordict))


class TransformersVLA(VLAWrapperBase):
    """The deterministic part of a policy on a vision-language model.

    ``gaussian_actor`` and ``token_actor`` make it a policy. With an :class:`ActionTokenHead` it
    writes ``"logits"``, with a :class:`ChunkHead` the mean chunk.

    Args:
        features: reads the observation.
        head: what is made of its hidden states.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.

    Raises:
        ValueError: if the number of queries does not fit the head.
    """

    def __init__(
        self,
        features: QueryFeatures,
        head: ActionTokenHead | ChunkHead,
        *,
        chunk_size: int,
        action_dim: int,
    ) -> None:
        tokens = isinstance(head, ActionTokenHead)
        expected = chunk_size * action_dim if tokens else chunk_size
        found = len(features.network.queries)
        if found != expected:
            raise ValueError(
                f"the network has {found} queries, and a chunk of {chunk_size} actions of size "
                f"{action_dim} needs {expected}."
            )
        super().__init__(
            features,
            action_dim=action_dim,
            chunk_size=chunk_size,
            action_head="tokens" if tokens else "continuous",
            vocab_size=head.bins if isinstance(head, ActionTokenHead) else None,
            input_mode="preprocessed",
            return_vla_action_container=False,
            logits_only=tokens,
            action_logits_key=keys.LOGITS,
        )
        self.head = head

    def _update_keys(self) -> None:
        super()._update_keys()
        self.in_keys = list(self.model.in_keys)

    def _predict(self, tensordict: TensorDictBase) -> Tensor:
        batch = tensordict.batch_size
        hidden = self.model.features(tensordict)
        hidden = hidden.reshape(batch.numel(), *hidden.shape[len(batch) :])
        if isinstance(self.head, ActionTokenHead):
            out: Tensor = self.head(hidden, self.model.network.backbone)
        else:
            out = self.head(hidden)
        return out.reshape(*batch, -1)
