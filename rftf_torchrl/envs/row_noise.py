"""A policy's decisions on a batch, each row with noise of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl.nets.evaluate_states import policy_device
from rftf_torchrl.policies.call_on_tensors import Tensors, call_on_tensors, leaves

# What else draws is noticed by the generator that it moves.
_DRAWING = {
    *("rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "randperm"),
    *("normal", "bernoulli", "binomial", "multinomial", "poisson"),
    *("_standard_gamma", "_sample_dirichlet"),
    *("normal_", "uniform_", "exponential_", "bernoulli_", "random_"),
    *("log_normal_", "cauchy_", "geometric_"),
}
# What torch itself fills an empty tensor by; in place it takes less than half of the time.
_FILLS = {
    torch.ops.aten.randn.default: Tensor.normal_,
    torch.ops.aten.rand.default: Tensor.uniform_,
}
_ADVICE = (
    "In a batch of decisions each row has noise of its own, so that an episode does not depend on "
    "those beside it: draw with torch's functions, without a generator, and with the batch as the "
    "first dimension; or set collector.batch=1, with the policy on a CPU."
)


@cache
def _with_generator(func: OpOverload) -> OpOverload | None:
    """The variant of an operator that takes a generator, if there is one."""
    own = [(argument.name, str(argument.type)) for argument in func._schema.arguments]
    for name in func.overloadpacket.overloads():
        overload: OpOverload = getattr(func.overloadpacket, name)
        arguments = [(a.name, str(a.type)) for a in overload._schema.arguments]
        if sorted(arguments) == sorted({*own, ("generator", "Optional[Generator]")}):
            return overload
    return None


class _ByRow(TorchDispatchMode):
    """Executes random operators row by row, on the CPU, wherever the tensors are."""

    def __init__(self, generators: list[torch.Generator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators = generators

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **given)
        names = [argument.name for argument in func._schema.arguments]
        bound = dict(zip(names, args, strict=False)) | given
        tensors = {name: value for name, value in bound.items() if isinstance(value, Tensor)}
        sizes = [bound["size"]] if "size" in bound else [each.shape for each in tensors.values()]
        shape = torch.broadcast_shapes(*sizes)
        repeats, left = divmod(shape[0], len(self._generators)) if shape else (0, 1)
        seeded = _with_generator(func)
        if left or not repeats or seeded is None or bound.get("generator") is not None:
            raise RuntimeError(
                f"the policy draws random numbers by {func} of shape {list(shape)} for "
                f"{len(self._generators)} decisions. {_ADVICE}"
            )
        if func in _FILLS:
            drawn = torch.empty(shape, dtype=bound.get("dtype"), device="cpu")
            for part, generator in zip(drawn.split(repeats), self._generators, strict=True):
                _FILLS[func](part, generator=generator)
            return drawn.to(bound.get("device") or torch.get_default_device())
        home = bound.get("device") or next(
            (each.device for each in tensors.values()), torch.get_default_device()
        )
        if "device" in names:
            bound["device"] = torch.device("cpu")
        in_place = func._schema.is_mutable
        here = {
            name: each.to("cpu", copy=in_place and name == "self").expand(shape)
            for name, each in tensors.items()
        }
        rows = []
        for row, generator in enumerate(self._generators):
            part = slice(row * repeats, (row + 1) * repeats)
            bound["generator"] = generator
            bound.update({name: each[part] for name, each in here.items()})
            if "size" in bound:
                bound["size"] = [repeats, *shape[1:]]
            rows.append(seeded(**bound))
        drawn = torch.cat(rows)
        return tensors["self"].copy_(drawn) if in_place else drawn.to(home)


class _RowNoise(TorchFunctionMode):
    """Looks at the calls of torch's functions, which costs less than looking at operators."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self._by_row = _ByRow([torch.Generator().manual_seed(seed) for seed in seeds])

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _DRAWING:
            with self._by_row:
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _generator_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def decide(
    policy: TensorDictModuleBase,
    observed: Tensors,
    seeds: Sequence[int],
    *,
    deterministic: bool,
) -> Tensors:
    """A policy's decisions on a batch, the noise of each row from a seed of its own.

    Random numbers are drawn on the CPU, whatever the policy's device and the rows beside it. A
    single row of a policy on the CPU takes torch's own generator, which is seeded for it.

    Args:
        policy: TensorDict policy.
        observed: what it reads by key, leaves of batch size [B].
        seeds: B numbers, below 2**32.
        deterministic: the policy's mean action instead of a sample.

    Returns:
        What the policy writes by key, leaves of batch size [B], on the CPU.

    Raises:
        RuntimeError: when the policy draws in a way that can't be divided into rows.
    """
    device = policy_device(policy)
    mode = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    batch = torch.Size([len(seeds)])
    data = {key: each.to(device) for key, each in observed.items()}
    with torch.inference_mode(), set_exploration_type(mode):
        if len(seeds) == 1 and device.type == "cpu":
            torch.default_generator.manual_seed(seeds[0])
            call_on_tensors(policy, data, batch)
        else:
            before = _generator_states(device)
            with _RowNoise(seeds):
                call_on_tensors(policy, data, batch)
            after = _generator_states(device)
            if not all(map(torch.equal, before, after)):
                raise RuntimeError(
                    "the policy draws random numbers by a function that is not among torch's "
                    f"elementary ones, such as dropout. {_ADVICE}"
                )
        if any(key not in data for key in policy.out_keys):  # one may name several leaves
            data = leaves(TensorDict(data, batch).select(*policy.out_keys))
        else:
            data = {key: data[key] for key in policy.out_keys}
        return {key: each.to("cpu") for key, each in data.items()}
