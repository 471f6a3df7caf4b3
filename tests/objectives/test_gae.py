"""make_gae against a slow reference, and drop_crashed."""

from __future__ import annotations

import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.objectives.value import GAE

from rftf_torchrl import drop_crashed, make_gae, values_of_states

GAMMA, LMBDA = 0.9, 0.8


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.embedding = nn.Embedding(5, 1)

    def forward(self, state, tokens):
        return self.net(state) + self.embedding(tokens).sum(-2)


def critic() -> TensorDictModule:
    return TensorDictModule(
        Critic(), in_keys=["state", ("instruction", "tokens")], out_keys=["state_value"]
    )


def trajectory(length: int, end: str, number: int) -> TensorDict:
    generator = torch.Generator().manual_seed(number)
    state = torch.randn(length + 1, 3, generator=generator)
    flags = {key: torch.zeros(length, 1, dtype=torch.bool) for key in ("terminated", "truncated")}
    if end in flags:
        flags[end][-1] = True
    tokens = torch.full((length, 2), number % 5)
    following = {
        "state": state[1:],
        "instruction": {"tokens": tokens},
        "reward": torch.randn(length, 1, generator=generator),
        "done": flags["terminated"] | flags["truncated"],
        **flags,
    }
    data = TensorDict({"state": state[:-1], "next": following}, [length])
    data["instruction", "tokens"] = tokens.clone()
    data["collector", "traj_ids"] = torch.full((length,), number)
    data["task_id"] = torch.full((length, 1), number % 2)
    return data


ENDS = ("terminated", "truncated")


def flat(seed: int = 0) -> TensorDict:
    """[N]: many complete trajectories of random lengths and ends, one after another."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (30,), generator=generator).tolist()
    ends = torch.randint(0, 2, (30,), generator=generator).tolist()
    pieces = [trajectory(n, ENDS[e], i) for i, (n, e) in enumerate(zip(lengths, ends, strict=True))]
    return torch.cat(pieces)


def grid() -> TensorDict:
    """[B, T]: rows of several trajectories, of which the last continues after the batch."""
    rows = [
        [(3, "terminated"), (2, "truncated"), (3, "open")],
        [(8, "open")],
        [(1, "truncated"), (1, "terminated"), (6, "terminated")],
        [(8, "truncated")],
    ]
    numbers = iter(range(100))
    return torch.stack(
        [torch.cat([trajectory(n, end, next(numbers)) for n, end in row]) for row in rows]
    )


def with_values(data: TensorDict, network=None) -> TensorDict:
    value, next_value = values_of_states(network or critic(), data, out_key="state_value")
    data["state_value"], data["next", "state_value"] = value, next_value
    return data


def reference(data: TensorDict) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation 16 of the GAE paper, one step at a time from the end, in float64."""
    rows = data if data.batch_dims == 2 else data.unsqueeze(0)
    advantage = torch.zeros(*rows.shape, 1, dtype=torch.float64)
    for b in range(rows.shape[0]):
        following = 0.0
        for t in reversed(range(rows.shape[1])):
            step = rows[b, t]
            bootstrap = 0.0 if step["next", "terminated"] else step["next", "state_value"].item()
            delta = step["next", "reward"].item() + GAMMA * bootstrap - step["state_value"].item()
            if step["next", "done"]:
                following = 0.0
            following = delta + GAMMA * LMBDA * following
            advantage[b, t] = following
    advantage = advantage.reshape(*data.shape, 1).float()
    return advantage, advantage + data["state_value"]


@pytest.mark.parametrize(
    "make", [flat, grid, lambda: flat(1), lambda: trajectory(1, "terminated", 0)]
)
def test_against_the_slow_reference(make):
    data = with_values(make())
    advantage, target = reference(data)
    make_gae(gamma=GAMMA, lmbda=LMBDA)(data)
    torch.testing.assert_close(data["advantage"], advantage, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(data["value_target"], target, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"deactivate_vmap": True}, {"value_chunk_size": 3}])
@pytest.mark.parametrize("make", [flat, grid])
def test_precomputed_values_equal_the_network(make, options):
    network = critic()
    computed = make_gae(gamma=GAMMA, lmbda=LMBDA, value_network=network, **options)(make())
    given = make_gae(gamma=GAMMA, lmbda=LMBDA)(with_values(make(), network))
    for key in ("advantage", "value_target", "state_value"):
        torch.testing.assert_close(computed[key], given[key], rtol=1e-4, atol=1e-5)
        assert not computed[key].requires_grad
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("end", "expected"), [("terminated", 1.0 - 0.25), ("truncated", 1.0 + 0.9 * 2.0 - 0.25)]
)
def test_only_truncation_bootstraps(end, expected):
    data = trajectory(1, end, 0)
    data["next", "reward"][:] = 1.0
    data["state_value"] = torch.full((1, 1), 0.25)
    data["next", "state_value"] = torch.full((1, 1), 2.0)
    out = make_gae(gamma=GAMMA, lmbda=LMBDA)(data)
    assert out["advantage"].item() == pytest.approx(expected)
    assert out["value_target"].item() == pytest.approx(expected + 0.25)


def test_trajectories_do_not_leak_into_each_other():
    together = make_gae(gamma=GAMMA, lmbda=LMBDA)(with_values(flat()))
    ids = together["collector", "traj_ids"]
    for number in ids.unique():
        alone = with_values(flat())[ids == number]
        make_gae(gamma=GAMMA, lmbda=LMBDA)(alone)
        torch.testing.assert_close(
            alone["advantage"], together["advantage"][ids == number], rtol=1e-4, atol=1e-5
        )


def test_it_is_stock_gae_with_other_keys():
    gae = make_gae(gamma=GAMMA, lmbda=LMBDA, reward_key="dense_reward")
    gae.set_keys(value="v", advantage="a", value_target="target")
    assert type(gae) is GAE
    data = with_values(flat())
    expected = reference(data)
    data.rename_key_("state_value", "v")
    data.rename_key_(("next", "state_value"), ("next", "v"))
    data.rename_key_(("next", "reward"), ("next", "dense_reward"))
    gae(data)
    torch.testing.assert_close((data["a"], data["target"]), expected, rtol=1e-4, atol=1e-5)


def test_standardised_per_group():
    data = make_gae(gamma=GAMMA, lmbda=LMBDA, average_gae=True, group_key="task_id")(
        with_values(flat())
    )
    for task in (0, 1):
        group = data["advantage"][data["task_id"] == task]
        assert group.mean().item() == pytest.approx(0, abs=1e-5)
        assert group.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("group_key", [None, "task_id"])
def test_a_single_decision_has_no_deviation(group_key):
    data = with_values(flat())[:1].clone()
    data["next", "done"][:] = data["next", "terminated"][:] = True
    gae = make_gae(gamma=GAMMA, lmbda=LMBDA, average_gae=True, group_key=group_key)
    expected = make_gae(gamma=GAMMA, lmbda=LMBDA)(data.clone())
    found = gae(data)
    assert found["advantage"].tolist() == [[0.0]]
    assert torch.equal(found["value_target"], expected["value_target"])
    assert float(expected["advantage"]) != 0


def crashed(data: TensorDict, *numbers: int) -> TensorDict:
    """Mark the last step of these trajectories."""
    ids = data["collector", "traj_ids"]
    last = data["next", "done"].squeeze(-1)
    chosen = torch.isin(ids, torch.tensor(numbers, dtype=torch.int64))
    data["next", "crashed"] = (last & chosen).unsqueeze(-1)
    return data


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_drop_crashed_drops_whole_trajectories_and_counts_them(dtype):
    data = crashed(flat(), 3, 17)
    data["next", "crashed"] = data["next", "crashed"].to(dtype)
    ids = data["collector", "traj_ids"]
    with pytest.raises(ValueError, match=r"^Trajectories 3, 17 contain a crashed step"):
        make_gae(gamma=GAMMA, lmbda=LMBDA)(with_values(data.clone()))
    rest, dropped = drop_crashed(data)
    assert dropped == 2
    assert torch.equal(rest["collector", "traj_ids"], ids[(ids != 3) & (ids != 17)])
    make_gae(gamma=GAMMA, lmbda=LMBDA)(with_values(rest))
    expected, _ = reference(rest)
    torch.testing.assert_close(rest["advantage"], expected, rtol=1e-4, atol=1e-5)


def test_drop_crashed_returns_the_same_object_when_nothing_crashed():
    for data in (flat(), crashed(flat()), grid()):
        rest, dropped = drop_crashed(data)
        assert rest is data
        assert dropped == 0


def test_everything_may_crash():
    rest, dropped = drop_crashed(crashed(flat(), *range(30)))
    assert (len(rest), dropped) == (0, 30)


def run(data: TensorDict, **kwargs):
    return make_gae(gamma=GAMMA, lmbda=LMBDA, **kwargs)(data)


def padded() -> TensorDict:
    data = with_values(flat())
    data["collector", "mask"] = torch.arange(len(data)) < len(data) - 5
    return data


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: run(with_values(crashed(flat(), 3, 17))),
            ValueError,
            "Trajectories 3, 17 contain a crashed step (('next', 'crashed')), which is neither a "
            "termination nor a truncation. Drop them first with drop_crashed.",
        ),
        (
            lambda: make_gae(gamma=GAMMA, lmbda=LMBDA)(
                tensordict=with_values(crashed(flat(), 3)).exclude(("collector", "traj_ids"))
            ),
            ValueError,
            "Trajectories of unknown id contain a crashed step",
        ),
        (
            lambda: run(with_values(flat()).exclude(("next", "terminated"))),
            KeyError,
            "('next', 'terminated') is missing. Without it every done would count as a "
            "termination and truncated trajectories would lose their bootstrap.",
        ),
        (lambda: run(flat()), ValueError, "The tensor with key state_value is missing"),
        (
            lambda: run(padded(), average_gae=True),
            ValueError,
            "average_gae would count the 5 padded steps of ('collector', 'mask'). Collect with "
            "traj_format='cat', or drop the padding first.",
        ),
        (
            lambda: make_gae(gamma=GAMMA, lmbda=LMBDA, group_key="task_id"),
            ValueError,
            "group_key='task_id' has no effect without standardisation: pass average_gae=True, or "
            "no group_key.",
        ),
        (
            lambda: drop_crashed(crashed(grid(), 0)),
            ValueError,
            "Crashed trajectories can only be dropped from a flat batch [N], got batch size "
            "(4, 8). Collect with traj_format='cat'.",
        ),
        (
            lambda: drop_crashed(crashed(flat(), 3, 4).exclude(("collector", "traj_ids"))),
            KeyError,
            "2 steps crashed, but ('collector', 'traj_ids') is missing, so their trajectories "
            "cannot be dropped. Collectors write it (trajs_per_batch).",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_drop_crashed_reads_the_keys_that_it_is_told():
    data = crashed(flat(), 3, 17)
    data["next", "info", "broke"] = data["next"].pop("crashed")
    data["number"] = data["collector"].pop("traj_ids")
    rest, dropped = drop_crashed(
        data, crashed_key=["next", "info", "broke"], trajectory_key="number"
    )
    assert dropped == 2
    assert not set(rest["number"].tolist()) & {3, 17}
