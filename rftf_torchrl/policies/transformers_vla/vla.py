"""A vision-language model as a TorchRL VLA: tensors in, logits or a mean chunk out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.modules.vla import VLAWrapperBase

from rftf_torchrl import keys
from rftf_torchrl.nets.entries import required
from rftf_torchrl.nets.finite_output import check_finite_output
from rftf_torchrl.nets.tower_features import TowerFeatures
from rftf_torchrl.policies.transformers_vla.query_network import Prompt, QueryNetwork


class ActionTokenHead(nn.Module):
    r"""Logits of K action tokens: rows of the model's own output layer.

    .. math::
        \ell_k = \frac{1}{T} \, w_{\mathrm{token}(k)}^\top h

    The first token of the list is the lowest bin. The layer is looked up in the model at every
    call, so that what is trained is the model's own weight.

    Source: Brohan et al. 2023, "RT-2", arXiv 2307.15818, section 3.2; Kim et al. 2024, "OpenVLA",
    arXiv 2406.09246, section 3.2.

    Args:
        tokens: ids of the action tokens, from the lowest to the highest bin.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        temperature: T, above 0; it belongs to the policy, in rollout and loss alike.

    Raises:
        ValueError: if the temperature or the number of tokens does not fit.

    Examples:
        >>> ActionTokenHead([5, 4, 3], chunk_size=2, action_dim=7).bins
        3
    """

    tokens: Tensor

    def __init__(
        self, tokens: Sequence[int], *, chunk_size: int, action_dim: int, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        if len(tokens) < 2 or len(set(tokens)) != len(tokens):
            raise ValueError(f"expected at least 2 different action tokens, got {list(tokens)}.")
        self.register_buffer("tokens", torch.tensor(list(tokens)), persistent=False)
        self.bins = len(tokens)
        self.shape = (chunk_size, action_dim, self.bins)
        self.temperature = float(temperature)

    def forward(self, hidden: Tensor, backbone: Any) -> Tensor:
        """Computes the logits.

        Args:
            hidden: [B, H * A, features].
            backbone: the model.

        Returns:
            float32 [B, H, A, K].

        Raises:
            FloatingPointError: if a logit is NaN or infinite.
        """
        return torch.unflatten(self.logits(hidden, backbone), 1, self.shape[:2])

    def logits(self, hidden: Tensor, backbone: Any) -> Tensor:
        """Maps any hidden states [B, n, features] to logits, float32 [B, n, K]."""
        layer = backbone.get_output_embeddings()
        rows = layer.weight[self.tokens]
        bias = getattr(layer, "bias", None)
        logits = nn.functional.linear(hidden, rows, None if bias is None else bias[self.tokens])
        logits = logits.float()
        cap = getattr(backbone.config.get_text_config(), "final_logit_softcapping", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return check_finite_output(logits / self.temperature, "logits")


class ChunkHead(nn.Module):
    """A mean action from each query: one linear layer.

    Args:
        hidden_size: features of a hidden state.
        action_dim: size of an action, A.

    Examples:
        >>> ChunkHead(8, action_dim=7)(torch.zeros(2, 4, 8)).shape
        torch.Size([2, 4, 7])
    """

    def __init__(self, hidden_size: int, *, action_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(hidden_size, action_dim)
        with torch.no_grad():
            self.mean.weight.mul_(0.1)
            self.mean.bias.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps hidden states [B, H, features] to means, float32 [B, H, A]."""
        mean: Tensor = self.mean(hidden.to(self.mean.weight.dtype))
        return mean.float()


_ADVICE = (
    ", and the policy reads it: append its observation_transform() to the environment, and call it "
    "on demonstrations."
)


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
            entry = required(tensordict, key, _ADVICE)
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
