import math
import re

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rftf_torchrl import clip_and_check_gradients, stop_on_non_finite_loss

NAN, INF = float("nan"), float("inf")
ADVICE = (
    "No parameter was changed; look at the rewards, advantages and log-probabilities of this batch."
)


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"loss_objective": NAN, "loss_critic": 1.0}, "loss_objective = nan"),
        ({"loss_objective": -INF, "loss_critic": NAN}, "loss_objective = -inf, loss_critic = nan"),
        ({"loss_objective": [0.0, INF]}, "loss_objective = inf"),
    ],
)
def test_non_finite_loss_stops(losses, named):
    td = TensorDict({key: torch.tensor(value) for key, value in losses.items()})
    with pytest.raises(
        FloatingPointError, match=re.escape(f"The loss is not finite: {named}. {ADVICE}")
    ):
        stop_on_non_finite_loss(td)


def test_finite_losses_pass_whatever_the_diagnostics():
    td = TensorDict({"loss_critic": torch.tensor(1e30), "explained_variance": torch.tensor(NAN)})
    assert stop_on_non_finite_loss(td) is None


def test_no_loss_is_an_error():
    td = TensorDict({"kl": torch.zeros(()), "entropy": torch.zeros(())})
    with pytest.raises(KeyError) as caught:
        stop_on_non_finite_loss(td)
    assert caught.value.args == ("No entry starts with 'loss_' among ['entropy', 'kl'].",)


def model_with_gradients(*values):
    model = nn.ParameterDict({f"p{i}": nn.Parameter(torch.zeros(2)) for i in range(len(values))})
    for parameter, value in zip(model.values(), values, strict=True):
        parameter.grad = None if value is None else torch.tensor(value)
    return model


def test_large_gradients_are_scaled_together():
    model = model_with_gradients([3.0, 0.0], [0.0, 4.0], None)
    norm = clip_and_check_gradients(model.named_parameters(), max_norm=1.0)
    assert norm.item() == 5.0
    assert torch.allclose(model["p0"].grad, torch.tensor([0.6, 0.0]), atol=1e-6)
    assert torch.allclose(model["p1"].grad, torch.tensor([0.0, 0.8]), atol=1e-6)
    assert model["p2"].grad is None


@pytest.mark.parametrize("max_norm", [10.0, INF])
def test_small_gradients_stay(max_norm):
    model = model_with_gradients([3.0, 0.0], [0.0, 4.0])
    assert clip_and_check_gradients(model.named_parameters(), max_norm).item() == 5.0
    assert model["p0"].grad.tolist() == [3.0, 0.0]


@pytest.mark.parametrize(
    ("gradients", "named"),
    [
        ([[1.0, 1.0], [NAN, 1.0]], "p1 are not finite"),
        ([[INF, 1.0], [1.0, 1.0], [1.0, NAN]], "p0, p2 are not finite"),
        ([[NAN, 1.0]] * 7, "p0, p1, p2, p3, p4 and 2 more are not finite"),
        ([[3e38, 3e38]], "p0 are finite, but their norm overflows"),
    ],
)
def test_non_finite_gradients_stop_before_the_step(gradients, named):
    model = model_with_gradients(*gradients)
    message = (
        f"The gradients of {named}. No parameter was changed; lower the learning rate or look at "
        "this batch."
    )
    with pytest.raises(FloatingPointError, match=re.escape(message)):
        clip_and_check_gradients(model.named_parameters(), max_norm=1.0)
    kept = [parameter.grad.tolist() for parameter in model.values()]
    finite = [value for row in gradients for value in row if not math.isnan(value)]
    assert [value for row in kept for value in row if not math.isnan(value)] == pytest.approx(
        finite
    )


def test_bad_arguments():
    model = model_with_gradients(None)
    with pytest.raises(
        ValueError,
        match=re.escape("No parameter has a gradient: call backward() on the loss first."),
    ):
        clip_and_check_gradients(model.named_parameters(), max_norm=1.0)
    for bad in (0, -1.0, NAN):
        with pytest.raises(
            ValueError, match=re.escape(f"max_norm is {bad}, expected a number above 0.")
        ):
            clip_and_check_gradients(model.named_parameters(), max_norm=bad)
