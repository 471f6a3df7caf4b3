"""Two optimizer steps of PPO, in one process or in each of two that torchrun starts.

python _two_steps.py FOLDER writes the parameters after the steps, one file per way of training.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from _blocks_policy import Mean, critic, decisions, policy
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from rftf_torchrl import (
    ChunkVelocity,
    FlowNoise,
    RFTFPPOLoss,
    accumulate_gradients,
    flow_actor,
    gaussian_actor,
    keys,
)

ROWS = 8


def flow():
    network = TensorDictModule(nn.Linear(5, 8), ["state"], ["features"])
    velocity = ChunkVelocity(8, (3, 2), width=8)
    return flow_actor(network, velocity, chunk_size=3, action_dim=2, noise=FlowNoise(8, (3, 2), 4))


def lora():
    import peft

    from rftf_torchrl import add_lora

    return add_lora(policy(), peft.LoraConfig(r=2, target_modules=["inner", "outer"]))


def fixed_scale():
    network = TensorDictModule(Mean(), ["state"], [keys.LOC])
    return gaussian_actor(network, chunk_size=3, action_dim=2, learn_scale=False)


def shard(loss):
    """Shards the networks: FSDP gathers parameters where their module is called with tensors."""
    mesh = init_device_mesh("cpu", (2,))
    for network in (loss.actor_network[0].module, loss.critic_network.module):
        for block in network.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
    return loss


WAYS = {
    "gaussian": (policy, DistributedDataParallel),
    "flow": (flow, DistributedDataParallel),
    "lora": (lora, DistributedDataParallel),
    "sharded": (fixed_scale, shard),
    "shared": (policy, lambda loss: loss),
}


def two_steps(way, rank=0, world=1):
    build, wrap = WAYS[way]
    torch.manual_seed(0)
    actor, value = build(), critic()
    data = decisions(actor, ROWS)
    reference = "adapters_off" if way == "lora" else actor
    loss = RFTFPPOLoss(
        actor,
        value,
        reference_actor=reference,
        functional=False,
        normalize_advantage=False,
        loss_critic_type="l2",
        kl_coeff=1.0,
    )
    loss.add_reference(data)
    wrapped = loss if world == 1 else wrap(loss)
    batches = [data[rank::world]] * 2
    if way == "shared":  # all have the batch; of the second one there is a row for one process
        batches = [data[:7], data[:1]]
    optimizer = torch.optim.SGD([p for p in loss.parameters() if p.requires_grad], lr=0.02)
    for mine in batches:
        optimizer.zero_grad()
        if world > 1 and way == "sharded":
            losses = wrapped(mine)
            sum(v for name, v in losses.items() if name.startswith("loss_")).backward()
        else:
            group = dist.group.WORLD if way == "shared" and world > 1 else None
            accumulate_gradients(wrapped, mine, micro_batch=3, group=group)
        optimizer.step()
    return {
        name: getattr(value, "full_tensor", lambda value=value: value)().detach().clone()
        for name, value in loss.named_parameters()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    for way in os.environ["WAYS"].split(","):
        parameters = two_steps(way, rank, world)
        torch.save(parameters, Path(sys.argv[1], f"{way}.{rank}.pt"))
    dist.barrier()
    # Gloo's threads sometimes outlive the interpreter and abort a process whose work is done.
    os._exit(0)
