"""Environments with a policy's inputs: strings go in, tensors come out, each of them once."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase, ParallelEnv, check_env_specs

from rftf_torchrl import Episode, EpisodeCollector, PolicyInputEnv, PolicyInputFactory, VLAInputs


class Talking(EnvBase):
    """Two decisions per episode; the image shows the time, and there is an instruction."""

    def __init__(self, sentence="push", batch_size=()):
        super().__init__(batch_size=torch.Size(batch_size))
        self.sentence, self.time = sentence, 0
        flag = Unbounded([*batch_size, 1], dtype=torch.bool)
        self.observation_spec = Composite(
            observation=Composite(
                image=Unbounded([*batch_size, 3, 4, 4], dtype=torch.uint8), shape=batch_size
            ),
            language_instruction=NonTensor(shape=batch_size, example_data="push"),
            episode_seed=Unbounded([*batch_size, 1], dtype=torch.int64),
            crashed=flag,
            shape=batch_size,
        )
        self.state_spec = Composite(episode_seed=Unbounded([1], dtype=torch.int64))
        self.action_spec = Unbounded([*batch_size, 1])
        self.reward_spec = Unbounded([*batch_size, 1])
        self.full_done_spec = Composite(done=flag.clone(), terminated=flag.clone())

    def _look(self):
        return {
            "observation": {"image": torch.full((3, 4, 4), self.time, dtype=torch.uint8)},
            "language_instruction": self.sentence,
            "episode_seed": torch.tensor([self.seed]),
            "crashed": torch.tensor([False]),
        }

    def set_instruction(self, text):
        self.sentence = "push" if text is None else text

    def _reset(self, tensordict=None, **kwargs):
        self.time, self.seed = 0, 0
        if tensordict is not None and "episode_seed" in tensordict.keys():  # noqa: SIM118
            self.seed = int(tensordict["episode_seed"])
        return TensorDict(self._look())

    def _step(self, tensordict):
        self.time += 1
        done = torch.tensor([self.time == 2])
        extra = {"reward": torch.zeros(1), "done": done, "terminated": done.clone()}
        return TensorDict({**self._look(), **extra})

    def _set_seed(self, seed):
        pass


def processor(images, sentences):
    return {
        "sum": images.flatten(1).sum(1, keepdim=True),
        "letters": torch.tensor([[len(sentence)] for sentence in sentences]),
    }


def make_env():
    return PolicyInputEnv(Talking(), VLAInputs(processor))


def make_episode_env(episode):
    return Talking()


SUM, LETTERS = ("vla_inputs", "sum"), ("vla_inputs", "letters")


class Act(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(0.9)

    def forward(self, total, letters):
        assert letters.dtype == torch.int64
        return self.dropout(total * self.weight + letters)


def make_policy():
    return TensorDictModule(Act(), in_keys=[SUM, LETTERS], out_keys=["action"])


def test_specs_fit_what_is_written():
    env = make_env()
    check_env_specs(env)
    assert set(env.input_keys) == {"vla_inputs", SUM, LETTERS}
    assert "language_instruction" not in env.observation_spec.keys()  # noqa: SIM118


@pytest.mark.slow
def test_a_parallel_environment_gives_tensors_alone():
    env = ParallelEnv(2, make_env, mp_start_method="fork")
    try:
        data = env.rollout(2)
    finally:
        env.close()
    assert data[SUM].squeeze(-1).tolist() == [[0, 48], [0, 48]]
    assert data["next", "vla_inputs", "letters"].unique().tolist() == [4]
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))


@pytest.mark.parametrize(
    "arguments",
    [{"workers": 0}, {"workers": 1}, {"workers": 0, "serve": True}, {"workers": 1, "serve": True}],
    ids=str,
)
def test_episodes_keep_the_inputs_of_the_deciding_state_once(arguments):
    factory = PolicyInputFactory(make_episode_env, VLAInputs(processor))
    policy = make_policy()
    collector = EpisodeCollector(factory, policy, **arguments)
    try:
        data = collector.collect([Episode("a", 1), Episode("a", 2, "pull hard")])
    finally:
        collector.close()
    assert data[SUM].squeeze(-1).tolist() == [0, 48, 0, 48]
    assert data[LETTERS].squeeze(-1).tolist() == [4, 4, 9, 9]
    assert data["action"].squeeze(-1).tolist() == [4, 52, 9, 57], "no dropout while acting"
    assert data["next", "observation", "image"].flatten(1)[:, 0].tolist() == [1, 2, 1, 2]
    assert "vla_inputs" not in data["next"].keys()  # noqa: SIM118
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))
    assert policy.module.dropout.training, "the flag came back"


@pytest.mark.parametrize("workers", [0, 1])
def test_of_a_served_policy_new_weights_count_at_once(workers):
    factory = PolicyInputFactory(make_episode_env, VLAInputs(processor))
    for serve, expected in ((False, [4, 52]), (True, [4, 100])):
        policy = make_policy()
        collector = EpisodeCollector(factory, policy, workers=workers, serve=serve)
        with torch.no_grad():
            policy.module.weight.fill_(2)
        assert collector.collect([Episode("a", 1)])["action"].squeeze(-1).tolist() == expected
        collector.update_policy_weights_()
        assert collector.collect([Episode("a", 1)])["action"].squeeze(-1).tolist() == [4, 100]
        collector.close()
