"""Two steps of Adam by a copy of a policy that is divided, in each process of torchrun's.

python _sharded_copy.py FOLDER writes what each process holds, and what the first one has at last.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from _blocks_policy import critic, decisions, policy
from torch.distributed.tensor import DTensor

from rftf_torchrl import RFTFPPOLoss, accumulate_gradients
from rftf_torchrl.training.guards import clip_and_check_gradients
from rftf_torchrl.training.sharding import ShardedCopy

CPU = torch.device("cpu")


def objective(actor, value, reference=None, **how):
    options = {"normalize_advantage": False, "loss_critic_type": "l2", "kl_coeff": 1.0}
    loss = RFTFPPOLoss(actor, value, reference_actor=reference, **options, **how)
    return loss, torch.optim.Adam([*actor.parameters(), *value.parameters()], lr=0.01)


def copy_of(actor, value, loss, optimizer):
    def build(*networks):
        return objective(*networks, functional=False)

    return ShardedCopy((actor, value), loss, optimizer, build, CPU)


def steps(loss, optimizer, data, group=None):
    norms = []
    for rows in (7, 5):  # five rows by three are one pass more in the first process
        optimizer.zero_grad()
        accumulate_gradients(loss, data[:rows], micro_batch=3, group=group)
        norms.append(float(clip_and_check_gradients(loss.named_parameters(), 0.5)))
        optimizer.step()
    return norms


def begin():
    """Policy, critic, loss and an optimizer that has made steps, and decisions."""
    torch.manual_seed(0)
    actor, value = policy(), critic()
    loss, optimizer = objective(actor, value, reference=actor)
    data = loss.add_reference(decisions(actor, 8))
    steps(loss, optimizer, data)
    return actor, value, loss, optimizer, data


def ended(actor, value, optimizer, norms):
    return {
        "weights": {**actor.state_dict(), **value.state_dict(prefix="critic.")},
        "optimizer": optimizer.state_dict(),
        "norms": norms,
    }


def held(copied):
    """Numbers of each divided weight, and of its gradient and moments: here, and in all."""
    found = []
    for parameter, state in copied.optimizer.state.items():
        if isinstance(parameter, DTensor):
            those = [parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
            found.append(([each.to_local().numel() for each in those], parameter.numel()))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    actor, value, loss, optimizer, data = begin()
    copied = copy_of(actor, value, loss, optimizer)
    norms = steps(copied.loss, copied.optimizer, data, dist.group.WORLD)
    copied.give(state=True)
    found = {"held": held(copied), "kept": sum(each.numel() for each in actor.parameters())}
    if rank == 0:
        found |= ended(actor, value, optimizer, norms)
    torch.save(found, Path(sys.argv[1], f"{rank}.pt"))
    dist.barrier()
    # Gloo's threads sometimes outlive the interpreter and abort a process whose work is done.
    os._exit(0)
