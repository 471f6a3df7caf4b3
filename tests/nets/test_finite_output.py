"""One error for each head whose numbers are not finite, and no obstacle to what torch traces."""

import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from rftf_torchrl import ChunkVelocity, EncoderConfig, FlowNoise, flow_actor, small_vla
from rftf_torchrl.nets.finite_output import check_finite_output

WHY = (
    " of the policy are not finite: its weights diverged, an observation is not finite, or its "
    "precision is too low for this model (try bfloat16 or float32)."
)
WHAT = {
    "gaussian": "30 of 30 means",
    "arm_gripper": "20 of 20 means",
    "tokens": "30 of 30 rows of logits",
    "flow": "120 of 120 denoised means",
}


def policy(head):
    config = EncoderConfig(image_size=None, state_dim=4, features=8)
    return small_vla(config, chunk_size=2, action_dim=3, head=head)


def observations():
    data = {
        "observation": {"state": torch.zeros(5, 4)},
        "instruction": {"tokens": torch.ones(5, 3).long(), "mask": torch.ones(5, 3).bool()},
    }
    return TensorDict(data, [5])


@pytest.mark.parametrize("head", WHAT)
def test_every_head_of_the_small_policy_says_so(head):
    data = observations()
    data["observation", "state"][:] = float("nan")
    with pytest.raises(FloatingPointError, match=f"^{re.escape(WHAT[head] + WHY)}"):
        policy(head)(data)


def test_a_gripper_and_a_standard_deviation_are_looked_at_too():
    actor = policy("arm_gripper")
    with torch.no_grad():
        actor.module[1].module.raw[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"^1 of 4 standard deviations of the policy"):
        actor(observations())
    actor = policy("arm_gripper")
    head = actor.module[0].module

    def closed_forever(module, inputs, output):
        return output[0], output[1] + float("inf")

    head.register_forward_hook(closed_forever)
    with pytest.raises(FloatingPointError, match=r"^10 of 10 gripper logits of the policy"):
        actor(observations())


def test_a_learned_noise_of_the_flow_is_looked_at_too():
    noise = FlowNoise(4, (2, 3), 4)
    network = TensorDictModule(nn.Identity(), ["state"], ["features"])
    actor = flow_actor(
        network, ChunkVelocity(4, (2, 3), width=8), chunk_size=2, action_dim=3, noise=noise
    )
    with torch.no_grad():
        noise.bias[-1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"^30 of 120 standard deviations of the policy"):
        actor(TensorDict({"state": torch.zeros(5, 4)}, [5]))


def test_a_bin_may_be_ruled_out():
    actor = policy("tokens")

    def without_the_first(module, inputs, output):
        output = output.clone()
        output[..., 0] = -float("inf")
        return output

    actor.module[0].module.register_forward_hook(without_the_first)
    out = actor(observations())
    assert torch.isfinite(out["vla_action", "log_probs"]).all()


def test_it_does_not_stop_what_torch_traces():
    bad = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    kept = torch.vmap(lambda row: check_finite_output(row, "means"))(bad)
    torch.testing.assert_close(kept, bad, equal_nan=True)
    assert check_finite_output(bad.to("meta"), "means").is_meta
    compiled = torch.compile(
        lambda x: check_finite_output(2 * x, "means"), backend="eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(bad), 2 * bad, equal_nan=True)
