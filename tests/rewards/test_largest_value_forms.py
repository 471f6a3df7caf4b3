"""Forms that let a failure keep what it reached: peak, and one of your own."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from _envs import ChunkWalkEnv, value_model, walk_policy
from tensordict import TensorDict
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import FrameSkipTransform, SerialEnv, TransformedEnv
from torchrl.envs.transforms import Compose
from torchrl.envs.utils import check_env_specs

from rftf_torchrl import DenseReward, ValueReward, keys

Form = str | Callable[..., Tensor]


def half_way(best: Tensor, next_best: Tensor) -> Tensor:
    """Pays once, where V passes a half."""
    return ((next_best >= 0.5) & (best < 0.5)).float()


KEEPING = ["peak", half_way]
WEIGHTS = {"dense_weight": 0.5, "outcome_weight": 1.0}


def trajectories(*episodes: tuple[list[float], bool]) -> TensorDict:
    """Episodes by the values of their states, and whether they succeed; a failure runs out."""
    parts = []
    for number, (values, won) in enumerate(episodes):
        column = torch.tensor(values).unsqueeze(-1)
        steps = len(values) - 1
        last = torch.arange(steps).unsqueeze(-1) == steps - 1
        ends = {"success": last & won, "terminated": last & won, "truncated": last & (not won)}
        data = TensorDict({"temporal_value": column[:-1], "next": ends}, [steps])
        data["next", "temporal_value"] = column[1:]
        data[keys.TRAJECTORY] = torch.full((steps,), number)
        parts.append(data)
    return torch.cat(parts)


def paid(form: Form, values: list[float], won: bool = False, **options: object) -> Tensor:
    """The dense reward of each step of an episode."""
    weights = WEIGHTS if form in KEEPING else {}
    data = DenseReward(form, **weights, **options)(trajectories((values, won)))
    return data["next", "dense_reward"].squeeze(-1)


def test_peak_pays_new_maxima_alone():
    steps = paid("peak", [0.1, 0.3, 0.2, 0.3, 0.6, 0.4])
    torch.testing.assert_close(steps, torch.tensor([0.2, 0.0, 0.0, 0.3, 0.0]))


@pytest.mark.parametrize("form", KEEPING)
@pytest.mark.parametrize("seed", range(5))
def test_a_failure_stays_below_every_success(form, seed):
    generator = torch.Generator().manual_seed(seed)
    failure = (3 * torch.rand(9, generator=generator) - 1).tolist()
    success = (3 * torch.rand(9, generator=generator) - 1).tolist()
    data = DenseReward(form, **WEIGHTS)(trajectories((failure, False), (success, True)))
    lost, won = data["next", "reward"].squeeze(-1).split(8)
    assert lost.sum() < 1 <= won.sum()


@pytest.mark.parametrize("form", KEEPING)
def test_back_and_forth_gains_nothing(form):
    once = paid(form, [0.1, 0.5, 0.4]).sum()
    often = paid(form, [0.1, 0.5, 0.1, 0.5, 0.1, 0.5, 0.4]).sum()
    assert once > 0
    torch.testing.assert_close(often, once)


@pytest.mark.parametrize("values", [[0.2, 0.9, 0.5, 0.8], [0.2, 0.1, 0.0, 0.1]])
def test_a_potential_telescopes_to_what_no_policy_changes(values):
    steps = paid("difference", values, won=True, gamma=0.9)
    assert sum(0.9**t * float(step) for t, step in enumerate(steps)) == pytest.approx(-0.2)


def env(form: Form) -> TransformedEnv:
    return TransformedEnv(ChunkWalkEnv(), ValueReward(value_model(), form=form, **WEIGHTS))


def collector_with(**arguments) -> Collector:
    torch.manual_seed(0)
    return Collector(
        ChunkWalkEnv(),
        walk_policy(),
        frames_per_batch=20,
        total_frames=60,
        trajs_per_batch=5,
        traj_format="cat",
        auto_register_policy_transforms=False,
        **arguments,
    )


def collected(form: Form) -> list[TensorDict]:
    collector, reward = collector_with(), ValueReward(value_model(), form=form, **WEIGHTS)
    batches = [reward(data).clone() for data in collector]
    collector.shutdown()
    return batches


@pytest.mark.parametrize("form", KEEPING)
def test_equal_in_environment_collector_and_buffer(form):
    torch.manual_seed(0)
    in_env = env(form).rollout(60, walk_policy(), break_when_any_done=False)
    torch.manual_seed(0)
    plain = ChunkWalkEnv().rollout(60, walk_policy(), break_when_any_done=False)
    ends = plain["next", "done"].squeeze(-1)
    assert ends.sum() > 2
    plain[keys.TRAJECTORY] = ends.cumsum(0) - ends.long()
    batch = ValueReward(value_model(), form=form, **WEIGHTS)(plain)
    assert batch["next", "dense_reward"].any()
    for key in (("next", "dense_reward"), ("next", "reward"), "best_value", ("next", "best_value")):
        torch.testing.assert_close(batch[key], in_env[key])
    expected = batch["next", "reward"].clone()
    batch["place"] = torch.arange(len(batch))
    batch["next", "reward"] = torch.full_like(expected, torch.nan)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(60), batch_size=32)
    buffer.append_transform(DenseReward(form, **WEIGHTS))
    buffer.extend(batch)
    sample = buffer.sample()
    torch.testing.assert_close(sample["next", "reward"], expected[sample["place"]])


def test_a_collector_pays_each_trajectory_its_largest_value():
    batches = collected("peak")
    assert len(batches) > 1
    for data in batches:
        ids = data[keys.TRAJECTORY]
        assert len(ids.unique()) == 5
        for number in ids.unique():
            own = data[ids == number]
            values = torch.cat([own["temporal_value"][:1], own["next", "temporal_value"]])
            gained = values.clamp(0, 1).max() - values.clamp(0, 1)[0, 0]
            torch.testing.assert_close(own["next", "dense_reward"].sum(), gained)


CUT = r"^trajectories are not complete, and this form of the reward reads the largest value so far:"


@pytest.mark.parametrize("form", KEEPING)
def test_pieces_of_trajectories_are_refused(form):
    """A collector's postproc gets them, and so does a sample of steps."""
    reward = ValueReward(value_model(), form=form, **WEIGHTS)
    collector = collector_with(postproc=reward)
    with pytest.raises(ValueError, match=CUT):
        list(collector)
    collector.shutdown()
    whole = trajectories(([0.1, 0.2, 0.3], True), ([0.1, 0.4], True))
    for rows in ([0], [0, 2], [2, 0]):
        with pytest.raises(ValueError, match=CUT):
            DenseReward(form, **WEIGHTS)(whole[rows].clone())


def test_a_stored_largest_value_is_read():
    reward = DenseReward("peak", **WEIGHTS)
    whole = trajectories(([0.1, 0.8, 0.3, 0.5, 0.7], True), ([0.1, 0.4], True))
    paid = reward(whole.clone())["next", "reward"]
    stored = reward(whole.clone())
    for rows in ([2, 0, 1], [2, 3], [3, 4], [3]):
        assert torch.equal(reward(stored[rows].clone())["next", "reward"], paid[rows])
    near = stored[[3]].clone()
    near["temporal_value"] += 1e-6  # the same state, evaluated in another batch
    torch.testing.assert_close(reward(near)["next", "reward"], paid[[3]])


def test_a_stored_largest_value_of_other_values_is_not_read():
    reward = DenseReward("peak", **WEIGHTS)
    data = reward(trajectories(([0.1, 0.8, 0.3], True), ([0.1, 0.4], True)))
    for key in ("temporal_value", ("next", "temporal_value")):
        data[key] = 1 - data[key]
    anew = reward(data.exclude("best_value", ("next", "best_value")))["next", "reward"]
    cut = data[[0]].clone()
    assert torch.equal(reward(data)["next", "reward"], anew)
    message = r"^trajectories are not complete, and 'best_value' is of other values, and this form"
    with pytest.raises(ValueError, match=message):
        reward(cut)


@pytest.mark.parametrize("form", KEEPING)
def test_specs(form):
    check_env_specs(env(form))


def test_a_reset_of_some_environments_leaves_the_others_best():
    torch.manual_seed(0)
    batched = TransformedEnv(
        SerialEnv(3, [lambda seed=seed: ChunkWalkEnv(seed=seed) for seed in range(3)]),
        ValueReward(value_model(), form="peak", **WEIGHTS),
    )
    data = batched.rollout(40, walk_policy(), break_when_any_done=False)
    begins = torch.cat([torch.ones(3, 1, 1, dtype=torch.bool), data["next", "done"][:, :-1]], 1)
    assert begins.sum(1).min() > 1
    values, following = data["temporal_value"], data["next", "temporal_value"]
    best = values[:, 0]
    for step in range(40):
        best = torch.where(begins[:, step], values[:, step], best)
        torch.testing.assert_close(data["best_value"][:, step], best)
        best = torch.maximum(best, following[:, step])
        torch.testing.assert_close(data["next", "best_value"][:, step], best)


def test_steps_without_their_trajectory_are_refused():
    data = trajectories(([0.1, 0.2, 0.3], False), ([0.1, 0.2, 0.3], False))
    message = (
        "the steps of a trajectory are not one after another in ('collector', 'traj_ids'), and "
        "this form of the reward reads the largest value so far: do this to a collector's batch "
        "(traj_format='cat'), before the steps are shuffled."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DenseReward("peak", **WEIGHTS)(data[torch.tensor([0, 2, 1, 3])])
    missing = (
        "('collector', 'traj_ids') is missing, and this form of the reward reads the largest value "
        "of a trajectory so far. Collectors write it (trajs_per_batch)."
    )
    with pytest.raises(KeyError) as caught:
        DenseReward("peak", **WEIGHTS)(data.exclude(keys.TRAJECTORY))
    assert caught.value.args[0] == missing


def test_skipped_frames_after_the_reward_are_refused():
    message = (
        "FrameSkipTransform after this form of the reward would pay the largest value of an "
        "episode again in each skipped step. Put it before the reward: "
        "Compose(FrameSkipTransform(...), ValueReward(...))."
    )
    reward = ValueReward(value_model(), form="peak", **WEIGHTS)
    skipping = TransformedEnv(ChunkWalkEnv(), Compose(reward, FrameSkipTransform(2)))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        skipping.output_spec  # noqa: B018


@pytest.mark.parametrize("form", KEEPING)
def test_a_failure_worth_a_success_is_refused(form):
    message = (
        "with this form a failure earns up to dense_weight=1 and a success at least "
        "outcome_weight=1: make dense_weight smaller, 0.5 for example."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DenseReward(form)


@pytest.mark.parametrize("form", ["difference", *KEEPING])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_values_of_another_shape_are_refused(form, shape):
    data = trajectories(([0.1, 0.3, 0.2, 0.6], False))
    data["temporal_value"] = torch.zeros(shape)
    message = re.escape(f"'temporal_value' must have shape (3, 1), got {shape}.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        DenseReward(form, **(WEIGHTS if form in KEEPING else {}))(data)
