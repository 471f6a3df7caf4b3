"""TorchRL's PPOTrainer trains with our loss and our reward."""

import re

import pytest
import torch
from _envs import ChunkWalkEnv
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.trainers.algorithms import PPOTrainer

from rftf_torchrl import (
    ReferenceHook,
    RFTFPPOLoss,
    ValueReward,
    check_first_ratio,
    gaussian_actor,
    keys,
)

FRAMES = 64
pytestmark = pytest.mark.filterwarnings("ignore")  # experimental, by its own words


class LastState(nn.Module):
    def forward(self, state):
        return state[..., :1] / 3


def parts():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Unflatten(-1, (3, 1)))
    actor = gaussian_actor(
        TensorDictModule(network, [keys.STATE], ["loc"]), chunk_size=3, action_dim=1
    )
    critic = TensorDictModule(nn.Linear(2, 1), [keys.STATE], ["state_value"])
    value_model = TensorDictModule(LastState(), [keys.STATE], [keys.TEMPORAL_VALUE])
    return actor, critic, value_model


def trainer(loss, actor, value_model, *, batches=3):
    collector = Collector(
        ChunkWalkEnv([4]),
        actor,
        frames_per_batch=FRAMES,
        total_frames=batches * FRAMES,
        postproc=ValueReward(value_model),
        auto_register_policy_transforms=False,
    )
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(FRAMES), sampler=SamplerWithoutReplacement(), batch_size=32
    )
    return PPOTrainer(
        collector=collector,
        total_frames=batches * FRAMES,
        frame_skip=1,
        optim_steps_per_batch=None,  # all minibatches
        num_epochs=2,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=1e-2),
        replay_buffer=buffer,
        progress_bar=False,
        log_interval=1,
        action_key=keys.CHUNK,
    )


def test_ppo_trainer_trains_with_the_reference():
    actor, critic, value_model = parts()
    loss = RFTFPPOLoss(actor, critic, reference_actor=actor, kl_target=1e-6)
    before = {name: value.clone() for name, value in actor.state_dict().items()}
    training = trainer(loss, actor, value_model)
    ReferenceHook(loss).register(training)
    errors = []

    def checked(batch):
        errors.append(check_first_ratio(loss, batch))
        return batch

    training.register_op("batch_process", checked)
    training.train()
    assert len(errors) == 3
    assert max(errors) < 1e-5
    logged = training._log_dict
    assert logged["kl_coeff"] == pytest.approx([0.2, 0.4, 0.8])  # far above such a target
    assert [float(kl) > 0 for kl in logged["kl_reference"]] == [True] * 3
    assert any(not torch.equal(before[name], value) for name, value in actor.state_dict().items())
    frozen = loss.reference_actor.state_dict()
    assert all(torch.equal(before[name], value) for name, value in frozen.items())


def test_without_the_hook_the_error_says_what_to_call():
    actor, critic, value_model = parts()
    loss = RFTFPPOLoss(actor, critic, reference_actor=actor)
    with pytest.raises(KeyError, match="call add_reference"):
        trainer(loss, actor, value_model, batches=1).train()


def test_a_loss_without_reference_is_refused():
    actor, *_ = parts()
    message = "the loss has no reference: pass reference_actor when you build it."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ReferenceHook(RFTFPPOLoss(actor))


def test_nothing_to_adapt_without_an_update():
    actor, *_ = parts()
    hook = ReferenceHook(RFTFPPOLoss(actor, reference_actor=actor))
    assert hook.adapt(0, None) is None
    assert float(hook.loss.kl_coeff) == pytest.approx(0.1)
