"""Low-rank adapters by peft inside any policy, and the policy without them as the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from rftf_torchrl.nets.evaluate_states import eval_mode
from rftf_torchrl.optional import optional_module, transformers_module

if TYPE_CHECKING:
    from peft import LoraConfig

Policy = TypeVar("Policy", bound=nn.Module)


def add_lora(policy: Policy, config: LoraConfig, *, part: str | type | None = None) -> Policy:
    r"""Freezes one part of a policy and adds low-rank adapters to its layers, in place.

    .. math::
        W' = W + \frac{\alpha}{r} B A, \qquad B = 0 \text{ at the start}

    so the policy acts as before until it is trained. Everything outside the part (an action head,
    for example) is trained as before. Adapters are float32, also beside weights in bfloat16.

    Source: Hu et al. 2021, "LoRA", arXiv 2106.09685; layers by the library peft.

    Args:
        policy: any module.
        config: ``peft.LoraConfig``; its ``target_modules`` are names inside the part.
        part: where the adapters go: a submodule's name, its class, or None for the one
            ``transformers`` model inside the policy (for the whole policy if there is none).

    Returns:
        The same policy.

    Raises:
        ImportError: if peft is missing.
        ValueError: if the part is not found or not unique, the policy has adapters already, or
            the config asks for dropout, for ``modules_to_save``, or for adapters that change the
            policy from the start.

    Examples:
        >>> import pytest
        >>> peft = pytest.importorskip("peft")
        >>> policy = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        >>> config = peft.LoraConfig(r=2, target_modules=["0"])
        >>> policy = add_lora(policy, config)
        >>> [name for name in adapter_state_dict(policy)]
        ['0.lora_A.default.weight', '0.lora_B.default.weight']
    """
    peft = _peft()
    if _adapter_layers(policy):
        raise ValueError("the policy has adapters already: merge_lora(policy) first.")
    if config.lora_dropout:
        raise ValueError(
            f"lora_dropout is {config.lora_dropout}, expected 0: with dropout, PPO's ratio is not "
            "1 before the first update."
        )
    if config.init_lora_weights not in (True, "gaussian"):
        raise ValueError(
            f"init_lora_weights is {config.init_lora_weights!r}, expected True or 'gaussian': "
            "others change the weights or the policy from the start, so that LoraReference would "
            "not be the policy that the adapters started from."
        )
    if config.modules_to_save:
        raise ValueError(
            f"modules_to_save is {list(config.modules_to_save)}, expected none: modules outside "
            "the part keep training, and LoraReference keeps their starting values."
        )
    peft.inject_adapter_in_model(config, _find_part(policy, part))
    for parameter in _adapter_parameters(policy).values():
        parameter.data = parameter.data.float()
    return policy


def merge_lora(policy: Policy) -> Policy:
    """Adds the adapters to the weights and removes them, in place, for deployment.

    Parameter names are those of before :func:`add_lora`. Frozen parameters stay frozen.

    Args:
        policy: a policy with adapters.

    Returns:
        The same policy.

    Raises:
        ValueError: if the policy has no adapters.
    """
    for name in _adapter_layers(policy, required=True):
        parent, _, child = name.rpartition(".")
        layer: Any = policy.get_submodule(name)
        layer.merge(safe_merge=True)
        setattr(policy.get_submodule(parent), child, layer.get_base_layer())
    for module in policy.modules():
        if "peft_config" in module.__dict__:
            del module.peft_config
    return policy


@contextmanager
def adapters_off(policy: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block the policy computes with its original weights.

    Args:
        policy: a policy with adapters.

    Raises:
        ValueError: if it has none.
    """
    layers = list(_adapter_layers(policy, required=True).values())
    trained = [(each, each.requires_grad) for each in _adapter_parameters(policy).values()]
    disabled = [layer.disable_adapters for layer in layers]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer, was_disabled in zip(layers, disabled, strict=True):
            if not was_disabled:
                layer.enable_adapters(True)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)


class LoraReference:
    """The policy that adapters started from, without a second copy of the frozen weights.

    Called, it gives a context in which the policy is the reference: adapters off, and parameters
    outside the adapters that train (heads) at the values that they had when this object was made.
    Only those are copied. Use the context between updates, not between a forward and a backward
    pass: it writes the values into the parameters and back.

    Args:
        policy: a policy with adapters, held by reference.

    Raises:
        ValueError: if it has no adapters.

    Examples:
        >>> import pytest
        >>> peft = pytest.importorskip("peft")
        >>> policy = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        >>> before = policy(torch.ones(3))
        >>> policy = add_lora(policy, peft.LoraConfig(target_modules=["0"]), part=None)
        >>> reference = LoraReference(policy)
        >>> _ = nn.init.ones_(policy[0].lora_B["default"].weight)
        >>> with reference():
        ...     torch.equal(policy(torch.ones(3)), before)
        True
    """

    def __init__(self, policy: nn.Module) -> None:
        adapters = _adapter_parameters(policy)
        if not adapters:
            _adapter_layers(policy, required=True)
        self.policy = policy
        self.start = {
            name: parameter.detach().clone()
            for name, parameter in policy.named_parameters()
            if parameter.requires_grad and name not in adapters
        }

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Makes the policy the reference inside the ``with`` block, without gradients."""
        parameters = dict(self.policy.named_parameters())
        moved = {name: parameters[name] for name in self.start}
        current = {name: parameter.detach().clone() for name, parameter in moved.items()}
        with torch.no_grad(), eval_mode(self.policy), adapters_off(self.policy):
            try:
                for name, parameter in moved.items():
                    parameter.copy_(self.start[name])
                yield
            finally:
                for name, parameter in moved.items():
                    parameter.copy_(current[name])


def adapter_state_dict(policy: nn.Module) -> dict[str, Tensor]:
    """Returns what training changes: the adapters, and other parameters that require gradients.

    Args:
        policy: a policy with adapters.

    Returns:
        Tensors by parameter name, detached.

    Raises:
        ValueError: if the policy has no adapters.
    """
    _adapter_layers(policy, required=True)
    adapters = _adapter_parameters(policy)
    return {
        name: parameter.detach()
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad or name in adapters
    }


def load_adapter_state_dict(policy: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads what :func:`adapter_state_dict` returned, after the same :func:`add_lora`.

    Args:
        policy: a policy with adapters of the same names and shapes.
        state: tensors by parameter name.

    Raises:
        ValueError: if names or shapes differ; all of them are listed, and nothing is loaded.
    """
    expected = adapter_state_dict(policy)
    problems = [f"missing: {name}" for name in sorted(expected.keys() - state.keys())]
    problems += [f"not in the policy: {name}" for name in sorted(state.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError(
            "these adapters do not fit the policy: " + "; ".join(problems) + ". Call add_lora "
            "with the config they were trained with, and freeze the same parameters."
        )
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(state[name])


def _peft() -> Any:
    return optional_module("peft", "lora", "a policy with low-rank adapters")


def _adapter_layers(policy: nn.Module, *, required: bool = False) -> dict[str, Any]:
    base = _peft().tuners.tuners_utils.BaseTunerLayer
    found = {name: module for name, module in policy.named_modules() if isinstance(module, base)}
    if required and not found:
        raise ValueError("the policy has no adapters: call add_lora(policy, config) first.")
    return found


def _adapter_parameters(policy: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' parameters by name, without those of the layers they were added to."""
    prefixes = tuple(
        f"{name}.{kind}."
        for name, layer in _adapter_layers(policy).items()
        for kind in layer.adapter_layer_names
    )
    return {name: value for name, value in policy.named_parameters() if name.startswith(prefixes)}


def _find_part(policy: nn.Module, part: str | type | None) -> nn.Module:
    if isinstance(part, str):
        try:
            return policy.get_submodule(part)
        except AttributeError as error:
            names = [name for name, _ in policy.named_children()]
            raise ValueError(
                f"the policy has no part {part!r}; its parts are {names}, and theirs."
            ) from error
    if part is None:
        kind: type = transformers_module("a policy with low-rank adapters").PreTrainedModel
    else:
        kind = part
    found = {name: module for name, module in policy.named_modules() if isinstance(module, kind)}
    outer = [
        name
        for name in found
        if not any(name.startswith(f"{other}." if other else "") for other in found.keys() - {name})
    ]
    if part is None and not outer:
        return policy
    if len(outer) != 1:
        raise ValueError(
            f"expected one {kind.__name__} in the policy, found {len(outer)}"
            + (f": {outer}" if outer else "")
            + "; name it: part='...'."
        )
    return policy.get_submodule(outer[0])
