import logging

import pytest
import torch
from _blocks_policy import critic, decisions, gradients, policy, total

from rftf_torchrl import RFTFPPOLoss, compile_module


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_compiled_network_learns_the_same(functional, backend):
    torch.manual_seed(0)
    actor, value = policy(), critic()
    data = decisions(actor, 6)
    loss = RFTFPPOLoss(actor, value, functional=functional, kl_coeff=0)
    total(loss(data)).backward()
    expected = gradients(loss)
    names = list(actor.state_dict())
    assert compile_module(actor[0].module, backend=backend)
    assert list(actor.state_dict()) == names
    compiled = RFTFPPOLoss(actor, value, functional=functional, kl_coeff=0)
    compiled.zero_grad()
    out = compiled(data)
    total(out).backward()
    torch.testing.assert_close(out["max_ratio"], torch.tensor(1.0))
    for name, gradient in gradients(compiled).items():
        torch.testing.assert_close(gradient, expected[name])


def test_the_network_is_really_compiled():
    seen = []

    def backend(graph, _):
        seen.append(graph)
        return graph.forward

    actor = policy()
    assert compile_module(actor[0].module, backend=backend)
    decisions(actor, 3)
    assert len(seen) >= 2, "the probe, and the network"


def test_a_machine_that_cannot_compile_says_so_and_goes_on(caplog):
    def broken(graph, inputs):
        raise OSError("no compiler\nand more")

    actor = policy()
    with caplog.at_level(logging.WARNING):
        assert compile_module(actor[0].module, backend=broken) is False
    assert caplog.messages[0].startswith("Mean stays uncompiled: torch.compile with backend ")
    assert "no compiler" in caplog.messages[0]
    assert decisions(actor, 3).shape == (3,)
