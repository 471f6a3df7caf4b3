"""values_of_states: one evaluation per distinct state, whatever the layout of the data."""

from __future__ import annotations

import re

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import values_of_states
from rftf_torchrl.nets.evaluate_states import eval_mode


class Counting(nn.Module):
    """V(x, tokens) = 2 sum(x) + sum(tokens); records the states it saw per forward."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)
        self.forwards: list[int] = []

    def forward(self, x, tokens):
        self.forwards.append(len(x))
        x = self.dropout(self.weight * x.float())
        return x.sum(-1, keepdim=True) + tokens.sum(-1, keepdim=True)


def value_module() -> TensorDictModule:
    return TensorDictModule(
        Counting(), in_keys=["x", ("instruction", "tokens")], out_keys=["temporal_value"]
    )


def trajectory(length: int, seed: int, tokens_in_next: bool = True) -> TensorDict:
    x = torch.randn(length + 1, 3, generator=torch.Generator().manual_seed(seed))
    tokens = torch.full((length, 4), seed)
    data = TensorDict(
        {"x": x[:-1], "next": {"x": x[1:]}, ("instruction", "tokens"): tokens}, [length]
    )
    if tokens_in_next:
        data["next", "instruction", "tokens"] = tokens
    return data


def expected(data: TensorDict) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = data["instruction", "tokens"].sum(-1, keepdim=True)
    return tuple(2 * x.sum(-1, keepdim=True) + tokens for x in (data["x"], data["next", "x"]))


def layouts() -> dict[str, tuple[TensorDict, int]]:
    """Name -> (data, how many distinct states a perfect evaluation needs)."""
    flat = torch.cat([trajectory(length, seed) for seed, length in enumerate((3, 1, 5))])
    shuffled = flat[torch.tensor([8, 0, 2, 4, 6, 3, 1, 5, 7])]
    return {
        "one trajectory": (trajectory(7, 0), 8),
        "flat cat": (flat, 9 + 3),
        "batch by time": (torch.stack([trajectory(4, s) for s in range(3)]), 15),
        "shuffled": (shuffled, 18),
        "one transition": (trajectory(1, 0), 2),
        "scalar": (trajectory(1, 0)[0], 2),
        "tokens at the root only": (trajectory(6, 3, tokens_in_next=False), 7),
        "empty": (trajectory(3, 0)[:0], 0),
    }


@pytest.mark.parametrize("chunk_size", [1, 4, 1024])
@pytest.mark.parametrize("name", list(layouts()))
def test_values_are_right_and_each_state_is_evaluated_once(name, chunk_size):
    data, states = layouts()[name]
    module = value_module()
    value, next_value = values_of_states(module, data, chunk_size=chunk_size)
    assert value.shape == next_value.shape == (*data.batch_size, 1)
    torch.testing.assert_close((value, next_value), expected(data))
    assert sum(module.module.forwards) == states
    assert max(module.module.forwards, default=0) <= chunk_size


def test_a_change_of_tokens_alone_makes_a_new_state():
    data = trajectory(2, 1)
    data["next", "instruction", "tokens"] = torch.tensor([[9] * 4, [1] * 4])
    module = value_module()
    _, next_value = values_of_states(module, data)
    assert next_value[0].item() == pytest.approx(
        2 * data["next", "x"][0].sum().item() + 36, rel=1e-5
    )
    assert sum(module.module.forwards) == 4


def test_integer_images_are_compared_exactly():
    image = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    data = TensorDict({"x": image[:-1], "next": {"x": image[1:].clone()}}, [4])
    data["next", "x"][1, 0, 0, 0] += 1
    seen = []

    def mean(x):
        seen.append(len(x))
        return x.double().mean((1, 2, 3)).unsqueeze(-1)

    module = TensorDictModule(mean, in_keys=["x"], out_keys=["v"])
    value, next_value = values_of_states(module, data, out_key="v")
    assert value.dtype == next_value.dtype == torch.float32
    assert sum(seen) == 6
    torch.testing.assert_close(
        next_value, data["next", "x"].double().mean((1, 2, 3))[:, None].float()
    )


def test_no_gradient_and_flags_come_back():
    module = value_module()
    module.train()
    module.module.dropout.eval()
    value, next_value = values_of_states(module, trajectory(3, 0))
    assert not value.requires_grad
    assert not next_value.requires_grad
    assert module.training
    assert not module.module.dropout.training


def test_dropout_is_off_and_data_is_left_alone():
    data = trajectory(3, 0)
    before = data.clone()
    module = value_module().train()
    torch.testing.assert_close(values_of_states(module, data), expected(data))
    assert (data == before).all()
    assert set(data.keys(True, True)) == set(before.keys(True, True))


def test_eval_mode_restores_after_an_error():
    module = nn.Sequential(nn.Dropout(), nn.Dropout()).train()

    def fail():
        with eval_mode(module):
            assert not module[0].training
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert module[0].training
    assert module[1].training


def broken_inputs():
    module, data = value_module(), trajectory(2, 0)
    lost = "let the environment be TransformedEnv(env, spec.observation_transform())."
    reads = TensorDictModule(
        lambda x, history: x, in_keys=["x", ("vla_inputs", "history")], out_keys=["temporal_value"]
    )
    deaf = TensorDictModule(lambda: None, in_keys=[], out_keys=["temporal_value"])
    inputs = data.clone().set(("vla_inputs", "history"), torch.zeros(2, 1))
    strings = data.clone().set("x", NonTensorStack("a", "b"))
    wide = TensorDictModule(lambda x: x, in_keys=["x"], out_keys=["temporal_value"])
    other = TensorDictModule(lambda x: x[:, :1], in_keys=["x"], out_keys=["score"])
    return [
        (
            KeyError,
            (module, data.exclude("next")),
            {},
            "'next' is missing; the tensordict has instruction, x. Pass transitions: states at "
            "the root and their successors under 'next'.",
        ),
        (
            KeyError,
            (module, data.exclude("x")),
            {},
            "'x' is missing from the root of the tensordict, but the value module reads it. The "
            "keys are "
            "('instruction', 'tokens'), ('next', 'instruction', 'tokens'), ('next', 'x').",
        ),
        (
            TypeError,
            (module, strings),
            {},
            "'x' holds a NonTensorStack, but a value module can only read tensors. Turn "
            "instruction strings into tokens with InstructionTokens.",
        ),
        (
            ValueError,
            (wide, data),
            {},
            "The module must write 'temporal_value' with shape (2, 1), one value per state, but "
            "wrote shape (2, 3). Its out_keys are ['temporal_value'].",
        ),
        (
            ValueError,
            (other, data),
            {},
            "The module must write 'temporal_value' with shape (2, 1), one value per state, but "
            "wrote nothing. Its out_keys are ['score'].",
        ),
        (
            ValueError,
            (module, data),
            {"chunk_size": 0},
            "chunk_size must be at least 1 state per forward, got 0.",
        ),
        (
            ValueError,
            (deaf, data),
            {},
            "The module has no in_keys, so there is no state to read.",
        ),
        (
            KeyError,
            (module, data.exclude(("next", "x"), ("next", "instruction"))),
            {},
            "('instruction', 'tokens'), x missing under 'next', so that the next state would pass "
            "for the state itself: V(s') = V(s). Collectors with compact_obs=True leave out what "
            "the next state shows: build yours with compact_obs=False.",
        ),
        (
            KeyError,
            (reads, inputs),
            {},
            "('vla_inputs', 'history') missing under 'next', so that the next state would pass "
            "for the state itself: V(s') = V(s). run_episodes leaves out there what a "
            "PolicyInputEnv writes for the policy; where the value module reads it too, " + lost,
        ),
    ]


@pytest.mark.parametrize("case", range(9))
def test_errors_say_what_is_wrong(case):
    error, args, kwargs, message = broken_inputs()[case]
    with pytest.raises(error, match=re.escape(message)):
        values_of_states(*args, **kwargs)
