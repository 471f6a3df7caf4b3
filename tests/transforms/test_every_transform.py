"""What TorchRL's tests ask of a transform, asked of each of ours."""

import copy
import inspect
import pickle
from functools import partial

import pytest
import torch
from _envs import ChunkWalkEnv, value_model
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded, Composite, LazyTensorStorage, TensorDictReplayBuffer, Unbounded
from torchrl.envs import ParallelEnv, SerialEnv, TransformedEnv, check_env_specs
from torchrl.envs.transforms import Compose, RewardSum, StepCounter, Transform

import rftf_torchrl
from rftf_torchrl import (
    FiniteCheck,
    GoalImages,
    HashTokenizer,
    InstructionTokens,
    LeRobotObservation,
    ObservationHistory,
    StateValues,
    ToolFrameActions,
    ValueReward,
    VLAInputs,
    keys,
)


def numbers_and_length(pictures, sentences):
    """A processor that takes the state for an image."""
    lengths = torch.tensor([[float(len(sentence))] for sentence in sentences])
    return {"numbers": pictures.float().flatten(1), "length": lengths}


def halves_and_length():
    """What takes the place of LeRobot's preprocessor."""

    def preprocess(batch):
        lengths = torch.tensor([[float(len(sentence))] for sentence in batch["task"]])
        return {"observation.state": batch["observation.state"] / 2, "length": lengths}

    return preprocess, None


def brighter(observation, percent):
    return observation[keys.IMAGE] // 2 + percent


TRANSFORMS = {
    "InstructionTokens": lambda: InstructionTokens(
        HashTokenizer(max_length=5), tokens_key=("words", "tokens"), mask_key=("words", "mask")
    ),
    "FiniteCheck": lambda: FiniteCheck(["reward", keys.STATE]),
    "StateValues": lambda: StateValues(value_model(), chunk_size=3),
    "ValueReward": lambda: ValueReward(value_model(), gamma=0.9, reward_key=("got", "reward")),
    "ValueReward without values": lambda: ValueReward(None),
    "VLAInputs": lambda: VLAInputs(numbers_and_length, image_keys=[keys.STATE]),
    "ObservationHistory": lambda: ObservationHistory(
        3, {keys.STATE: ("seen", "states")}, valid_key=("seen", "valid")
    ),
    "LeRobotObservation": lambda: LeRobotObservation(
        {"observation.state": keys.STATE},
        ["observation.state", "length"],
        "language_instruction",
        halves_and_length,
    ),
    "GoalImages": lambda: GoalImages(brighter, every=2),
    "ToolFrameActions": ToolFrameActions,
}
ELSEWHERE = {"DenseReward"}  # it is in ValueReward
every = pytest.mark.parametrize("name", TRANSFORMS)
# Rows do not tell what came before them, or are others where the environment gets other actions.
no_rows = {"ObservationHistory", "GoalImages", "ToolFrameActions"}
every_on_data = pytest.mark.parametrize("name", [n for n in TRANSFORMS if n not in no_rows])


class ArmWalkEnv(ChunkWalkEnv):
    """With an arm's pose, which turns, an image, and the seven numbers of an arm's action."""

    def __init__(self):
        super().__init__(strings=True)
        self.observation_spec[keys.STATE] = Unbounded((15,))
        self.observation_spec[keys.IMAGE] = Bounded(0, 255, (3, 2, 2), dtype=torch.uint8)
        chunk = Bounded(-1, 1, (self.chunk, 7))
        self.action_spec = Composite(vla_action=Composite(chunk=chunk))

    def _data(self, **entries):
        data = super()._data(**entries)
        data[keys.STATE] = torch.cat([data[keys.STATE], self.position.expand(13) / 10], -1)
        data[keys.IMAGE] = (10 * self.position).byte().expand(3, 2, 2).clone()
        return data

    def _step(self, tensordict):
        return super()._step(TensorDict({keys.CHUNK: tensordict[keys.CHUNK][..., :1]}))


def walk():
    return ArmWalkEnv()


def walk_policy():
    def act(state):
        return torch.rand(*state.shape[:-1], 3, 7) * 1.2 - 0.4

    return TensorDictModule(act, in_keys=[keys.STATE], out_keys=[keys.CHUNK])


def rollout(env, steps=6):
    torch.manual_seed(0)
    data = env.rollout(steps, walk_policy(), break_when_any_done=False)
    env.close(raise_if_closed=False)
    return data


def numbers(data):
    return {key: value for key, value in data.items(True, True) if isinstance(value, torch.Tensor)}


def assert_same(found, expected, *, unseen=()):
    """Equal but for what only an environment writes."""
    found, expected = numbers(found), numbers(expected)
    assert expected.keys() - found.keys() == set(unseen) & expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], equal_nan=True, msg=str(key))


# A reset has no reward: an environment's first row has zeros, other data have none. Of other data,
# what a policy reads is written for the decisions alone.
ONLY_THERE = (
    *("outcome_reward", "dense_reward"),
    *(("next", "vla_inputs", name) for name in ("numbers", "length")),
)


@pytest.fixture
def plain():
    """Rows without the transform, and with it in their environment."""
    return lambda name: (
        rollout(walk()),
        rollout(TransformedEnv(walk(), TRANSFORMS[name]())),
    )


def test_the_table_has_every_transform():
    ours = {
        name
        for name, found in ((name, getattr(rftf_torchrl, name)) for name in rftf_torchrl.__all__)
        if inspect.isclass(found) and issubclass(found, Transform)
    }
    assert ours == {name.split()[0] for name in TRANSFORMS} | ELSEWHERE


@every
def test_alone_in_an_environment(name):
    env = TransformedEnv(walk(), TRANSFORMS[name]())
    check_env_specs(env)
    data = rollout(env)
    for key in env.transform.out_keys or ():
        assert data.get(("next", *((key,) if isinstance(key, str) else key)), None) is not None


def transformed(name):
    return TransformedEnv(walk(), TRANSFORMS[name]())


@every
def test_inside_and_around_several_environments(name):
    inside = SerialEnv(2, partial(transformed, name))
    around = TransformedEnv(SerialEnv(2, walk), TRANSFORMS[name]())
    assert_same(rollout(inside), rollout(around))
    check_env_specs(TransformedEnv(SerialEnv(2, walk), TRANSFORMS[name]()))


def all_of_them():
    return TransformedEnv(walk(), Compose(*(build() for build in TRANSFORMS.values())))


@pytest.mark.slow
def test_all_in_worker_processes():
    workers = ParallelEnv(2, all_of_them, mp_start_method="fork")
    assert_same(rollout(workers, 3), rollout(SerialEnv(2, all_of_them), 3))


@every
def test_among_others(name):
    together = TransformedEnv(walk(), Compose(StepCounter(), TRANSFORMS[name](), RewardSum()))
    appended = TransformedEnv(walk(), StepCounter())
    appended.append_transform(TRANSFORMS[name]())
    appended.append_transform(RewardSum())
    assert_same(rollout(together), rollout(appended))


@every_on_data
def test_on_data_without_an_environment(name, plain):
    rows, expected = plain(name)
    assert_same(TRANSFORMS[name]()(rows), expected, unseen=ONLY_THERE)


@every_on_data
def test_as_part_of_a_model(name, plain):
    rows, expected = plain(name)
    for model in (nn.Sequential(TRANSFORMS[name](), nn.Identity()), TRANSFORMS[name]().eval()):
        assert_same(model(rows.clone()), expected, unseen=ONLY_THERE)


@every_on_data
@pytest.mark.parametrize("invert", [False, True])
def test_in_a_replay_buffer(name, invert, plain):
    rows, expected = plain(name)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(len(rows)), batch_size=len(rows))
    buffer.append_transform(TRANSFORMS[name](), invert=invert)
    buffer.extend(rows)
    found = buffer.sample()
    assert_same(found.exclude("index"), expected[found["index"]], unseen=ONLY_THERE)


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n != "ToolFrameActions"])
def test_its_inverse_changes_nothing(name):
    rows = rollout(walk())
    assert_same(TRANSFORMS[name]().inv(rows.clone()), rows)


@every
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: x.clone()],
    ids=["deepcopy", "pickle", "clone"],
)
def test_a_copy_does_the_same(name, copied, plain):
    _, expected = plain(name)
    transform = TRANSFORMS[name]()
    for again in (copied(transform), transform):
        assert_same(rollout(TransformedEnv(walk(), again)), expected)
