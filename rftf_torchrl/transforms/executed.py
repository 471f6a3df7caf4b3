"""Tell the learner which actions of a chunk the environment executed."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from tensordict.utils import NestedKey

from rftf_torchrl.keys import CHUNK, EXECUTED, LOG_PROB, nested_keys
from rftf_torchrl.nets.evaluate_states import eval_mode


@nested_keys
def mark_executed(
    tensordict: TensorDictBase,
    actor: ProbabilisticTensorDictSequential | None = None,
    *,
    next_executed_key: NestedKey = ("next", "executed"),
    executed_key: NestedKey = EXECUTED,
    chunk_key: NestedKey = CHUNK,
    log_prob_key: NestedKey = LOG_PROB,
    minibatch: int = 256,
) -> TensorDictBase:
    """Move the environment's record of executed actions to where the losses read it.

    An episode that ends inside a chunk leaves the chunk's last actions unexecuted. They had no
    effect, so the log-probability of the decision is that of the executed actions only:
    log pi(chunk) = sum_h executed_h log pi(a_h). The actor could not know this when it acted.

    Args:
        tensordict: decisions of shape [*B]; changed in place. Without ``next_executed_key``
            every action counts as executed, and nothing changes.
        actor: the policy that collected the data. If given, and some action was not executed,
            the stored log-probabilities are computed again with its ``get_dist``, which must read
            ``executed_key`` (those of ``gaussian_actor`` do).
        next_executed_key: bool [*B, H], written by the environment.
        executed_key: bool [*B, H], written here.
        chunk_key: [*B, H, A], the chunk of actions.
        log_prob_key: float [*B], overwritten.
        minibatch: decisions per forward pass of the actor, which bounds the memory.

    Returns:
        ``tensordict``.

    Raises:
        ValueError: the record is not bool [*B, H], or the actor's distribution does not leave
            unexecuted actions out.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> data = TensorDict({"next": {"executed": torch.tensor([[True, True, False]])}}, [1])
        >>> mark_executed(data)["vla_action", "executed"].tolist()
        [[True, True, False]]
    """
    executed = tensordict.get(next_executed_key, None)
    if executed is None:
        return tensordict
    if executed.dtype != torch.bool or executed.ndim != tensordict.batch_dims + 1:
        raise ValueError(
            f"{next_executed_key!r} must be bool with shape {tuple(tensordict.batch_size)} + (H,), "
            f"got {executed.dtype} with shape {tuple(executed.shape)}."
        )
    tensordict.set(executed_key, executed)
    if actor is None or bool(executed.all()):
        return tensordict
    inputs = tensordict.select(*actor.in_keys, executed_key, chunk_key, strict=False).reshape(-1)
    log_probs = []
    with torch.no_grad(), eval_mode(actor):
        for piece in inputs.split(minibatch):
            distribution = actor.get_dist(piece.copy())
            if getattr(distribution, "executed", None) is None:
                raise ValueError(
                    f"{int((~executed).sum())} actions were not executed, but the actor's "
                    f"{type(distribution).__name__} does not read {executed_key!r}, so its "
                    "log-probabilities would count them. Use ChunkNormal or ChunkCategorical, or "
                    "an actor built by gaussian_actor."
                )
            log_probs.append(distribution.log_prob(piece.get(chunk_key)))
    return tensordict.set(log_prob_key, torch.cat(log_probs).reshape(tensordict.batch_size))
