import copy
import re

import pytest
import torch
from _blocks_policy import critic, decisions, gradients, moved, policy, total
from torch import nn

from rftf_torchrl import RFTFPPOLoss, checkpoint_activations


def counted(module):
    """Counts the runs of each block."""
    runs = []
    for block in module[0].module.blocks:
        block[0].register_forward_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_same_gradients_with_a_second_run_of_the_blocks(functional, training):
    plain = policy().train(training)
    data = decisions(plain, 4)
    saving = copy.deepcopy(plain)
    names = checkpoint_activations(saving)
    assert names == [f"module.0.module.blocks.{index}" for index in range(3)]
    value = critic()
    found = []
    for actor in (plain, saving):
        runs = counted(actor)
        loss = RFTFPPOLoss(actor, copy.deepcopy(value), functional=functional, kl_coeff=0)
        total(loss(data)).backward()
        found.append((gradients(loss), len(runs)))
    assert [runs for _, runs in found] == [3, 6]
    for name, gradient in found[0][0].items():
        assert torch.equal(found[1][0][name], gradient), name


def test_a_copy_recomputes_its_own_blocks():
    saving = policy()
    checkpoint_activations(saving)
    other = moved(copy.deepcopy(saving))
    data = decisions(saving, 4)
    for actor in (saving, other):
        actor.get_dist(data.copy()).mean.sum().backward()
    assert not torch.equal(
        saving[0].module.blocks[0][0].weight.grad, other[0].module.blocks[0][0].weight.grad
    )
    assert saving.state_dict().keys() == policy().state_dict().keys()


def test_layers_by_class():
    names = checkpoint_activations(policy(), nn.Tanh)
    assert names == [f"module.0.module.blocks.{index}.1" for index in range(3)]


@pytest.mark.parametrize(
    ("module", "layers", "message"),
    [
        (
            nn.Linear(1, 1),
            None,
            "Linear has no layer to checkpoint: no nn.ModuleList of two or more.",
        ),
        (
            nn.Linear(1, 1),
            nn.Tanh,
            "Linear has no layer to checkpoint: no <class 'torch.nn.modules.activation.Tanh'>.",
        ),
    ],
)
def test_errors(module, layers, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checkpoint_activations(module, layers)
