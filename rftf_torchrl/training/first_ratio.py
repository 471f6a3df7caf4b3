"""Stops a run whose learner gives actions another probability than the rollout did."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rftf_torchrl import keys
from rftf_torchrl.errors import UserError
from rftf_torchrl.nets.evaluate_states import eval_mode, policy_device
from rftf_torchrl.objectives.loss_keys import row_mask
from rftf_torchrl.objectives.ppo import RFTFPPOLoss

FLOAT32_BOUND = 0.01
BFLOAT16_BOUND = 0.25

OTHER_CAUSES = (
    "weights that changed after the rollout, or workers that still hold older ones "
    "(update_policy_weights_); torch.compile on one side only; a padding or mask that one side "
    "does not see"
)


def check_first_ratio(
    loss: RFTFPPOLoss,
    data: TensorDictBase,
    *,
    bound: float | None = None,
    minibatch: int = 256,
) -> float:
    r"""Stop where the policy that is to be updated is not the one that chose the actions.

    .. math::
        \max_i \big| \log \pi(a_i | s_i) - \log \pi_\mathrm{old}(a_i | s_i) \big| \le \mathrm{bound}

    Before the first step of an iteration the two are one policy, and PPO's ratio is 1 but for
    rounding. The bound holds for the probability of a whole decision, which is what PPO clips. Call
    it in the precision and the mode of the update.

    Args:
        loss: the loss that is to be minimised.
        data: decisions as they were collected, any batch size, with the policy's inputs, action
            and log-probability. Where the loss masks, what is masked does not count.
        bound: the largest difference of two log-probabilities; None for 0.01, or 0.25 where
            autocast is on or a weight is bfloat16.
        minibatch: decisions per forward pass.

    Returns:
        The largest difference.

    Raises:
        UserError: if it is above the bound or not finite, with the likely cause.

    Examples:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from rftf_torchrl import gaussian_actor
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(-1, (4, 2)))
        >>> policy = gaussian_actor(
        ...     TensorDictModule(network, ["state"], ["loc"]), chunk_size=4, action_dim=2
        ... )
        >>> with torch.no_grad():
        ...     data = policy(TensorDict({"state": torch.zeros(5, 3)}, [5]))
        >>> check_first_ratio(RFTFPPOLoss(policy, kl_coeff=0), data)
        0.0
    """
    device = policy_device(loss)
    autocasts = torch.is_autocast_enabled(device.type)
    if bound is None:
        halved = autocasts or any(p.dtype == torch.bfloat16 for p in loss.parameters())
        bound = BFLOAT16_BOUND if halved else FLOAT32_BOUND
    error = _error(loss, data, minibatch)
    if error <= bound:
        return error
    other = torch.autocast(device.type, dtype=torch.bfloat16, enabled=not autocasts)
    precisions = ("bfloat16", "float32") if autocasts else ("float32", "bfloat16")
    tries: Mapping[str, tuple[TensorDictBase, AbstractContextManager[object]]] = {
        "the policy differs in training mode, as by dropout: call policy.eval(), or set its rates "
        "to 0": (data, eval_mode(loss.actor_network)),
        "the update computes in {} and the rollout in {}: set one precision for both, or a larger "
        "bound": (data, other),
        "the features that the data keep are not those of the present frozen tower: keep them "
        "again, or set ppo.cache_gib=0": (data.exclude(keys.CACHE), nullcontext()),
    }
    found = []
    for cause, (tried, context) in tries.items():
        with context:
            if _error(loss, tried, minibatch) <= min(bound, error / 10):
                found.append(cause.format(*precisions))
    raise UserError(
        f"the learner's log-probability of a decision differs by up to {error:.3g} from that of "
        f"the rollout, and the bound is {bound:g}: the first ratio of PPO is not 1. No parameter "
        f"was changed. The likely cause: {'; or '.join(found) or OTHER_CAUSES}."
    )


@torch.no_grad()
def _error(loss: RFTFPPOLoss, data: TensorDictBase, minibatch: int) -> float:
    error: Tensor = loss.log_ratio(data, minibatch=minibatch).abs()
    mask = row_mask(loss, data)
    if mask is not None:
        error = error.where(mask, torch.zeros_like(error))
    return float(error.max())
