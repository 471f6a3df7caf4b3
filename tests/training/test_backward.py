"""Terms that share nothing have their backward passes at the same time, to the same bits."""

import threading

import pytest
import torch
from torch import nn

from rftf_torchrl.training.backward import backward_apart


def networks():
    torch.manual_seed(0)
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 1)) for _ in range(2)
    )


def terms(nets, shared):
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    actor, critic = (net(x) for net in nets)
    critic_loss = (critic - actor).square().mean() if shared else critic.square().mean()
    return [actor.mean(), critic_loss, 0.1 * actor.square().mean(), torch.tensor(2.0)]


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradients_are_those_of_the_sum(shared):
    together, apart = networks(), networks()
    sum(terms(together, shared)).backward()
    used = set()
    for net in apart:
        net[2].weight.register_hook(lambda grad: used.add(threading.get_ident()))
    backward_apart(terms(apart, shared))
    for expected, found in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(expected.grad, found.grad)
    assert len(used) == (1 if shared else 2)


def test_a_parameter_may_be_a_term():
    weight = nn.Parameter(torch.tensor(3.0))
    backward_apart([weight, weight.square(), weight])
    assert weight.grad == 8


def test_an_error_in_the_other_thread_is_raised():
    nets = networks()

    def fail(grad):
        raise ArithmeticError("a hook of the critic")

    nets[1][2].weight.register_hook(fail)
    with pytest.raises(ArithmeticError, match=r"^a hook of the critic$"):
        backward_apart(terms(nets, False))


def test_terms_without_a_gradient_are_refused_as_by_torch():
    with pytest.raises(RuntimeError, match="does not require grad"):
        backward_apart([torch.tensor(1.0)])
