import re

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import kl_divergence
from torchrl.data import AdaptiveKLController, ConstantKLController
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from rftf_torchrl import EncoderConfig, RFTFPPOLoss, keys, small_critic, small_vla

CONFIG = EncoderConfig(image_size=None, state_dim=5, text_dim=8, features=16)
HEADS = ["gaussian", "tokens"]


def policy(head: str = "gaussian"):
    return small_vla(CONFIG, chunk_size=4, action_dim=2, head=head)


def states(*batch: int) -> dict:
    return {
        "observation": {"state": torch.randn(*batch, 5)},
        "instruction": {
            "tokens": torch.randint(1, 20, (*batch, 4)),
            "mask": torch.ones(*batch, 4, dtype=torch.bool),
        },
        "temporal_value": torch.randn(*batch, 1),
    }


@torch.no_grad()
def decisions(actor, count: int = 6) -> TensorDict:
    """One trajectory whose last chunk was cut after its first action."""
    data = TensorDict(states(count), [count])
    executed = torch.ones(count, 4, dtype=torch.bool)
    executed[-1, 1:] = False
    data[keys.EXECUTED] = executed
    data = actor(data)
    done = torch.zeros(count, 1, dtype=torch.bool)
    done[-1] = True
    data["next"] = TensorDict(
        {**states(count), "reward": torch.randn(count, 1), "done": done, "terminated": done},
        [count],
    )
    data["advantage"] = torch.randn(count, 1)
    data["value_target"] = torch.randn(count, 1)
    return data


def moved(actor) -> None:
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def total(out: TensorDict) -> torch.Tensor:
    return sum(value for key, value in out.items() if key.startswith("loss_"))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("functional", [True, False])
def test_stock_clip_ppo_takes_both_actors(head, functional):
    actor, critic = policy(head), small_critic(CONFIG)
    data = decisions(actor)
    out = ClipPPOLoss(actor, critic, functional=functional)(data)
    assert out["max_ratio"] == 1
    assert out["mean_ratio"] == 1
    total(out).backward()
    assert all(parameter.grad is not None for parameter in critic.parameters())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("build_critic", [small_critic, lambda config: None])
def test_it_is_clip_ppo_plus_a_divergence(head, functional, build_critic):
    actor, critic = policy(head), build_critic(CONFIG)
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, critic, reference_actor=actor, kl_coeff=0.5, functional=functional)
    loss.add_reference(data)
    moved(actor)
    stock_options = {} if critic is not None else {"critic_coeff": None}
    stock = ClipPPOLoss(actor, critic, functional=functional, **stock_options)(data)
    out = loss(data)
    assert set(out.keys()) == {*stock.keys(), "loss_kl", "kl_reference"} == set(loss.out_keys)
    for key, value in stock.items():
        assert torch.equal(out[key], value)
    assert out["loss_kl"].shape == ()
    torch.testing.assert_close(out["loss_kl"].detach(), 0.5 * out["kl_reference"])


@pytest.mark.parametrize("head", HEADS)
def test_the_divergence_is_from_the_policy_to_the_reference_over_executed_actions(head):
    actor, reference = policy(head), policy(head)
    moved(actor)
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, reference_actor=reference)
    out = loss(loss.add_reference(data))
    expected = kl_divergence(actor.get_dist(data.copy()), reference.get_dist(data.copy()))
    torch.testing.assert_close(out["kl_reference"], expected.mean().detach())
    full = data.copy()
    full[keys.EXECUTED] = torch.ones_like(data[keys.EXECUTED])
    assert loss(full)["kl_reference"] > out["kl_reference"]


def test_the_divergence_is_that_of_the_rows_that_count():
    actor = policy()
    loss = RFTFPPOLoss(actor, reference_actor=actor)
    data = loss.add_reference(decisions(actor))
    moved(actor)
    expected = loss(data[:4])["kl_reference"]
    data["collector", "mask"] = torch.arange(6)[:, None] < 4
    torch.testing.assert_close(loss(data)["kl_reference"], expected)


@pytest.mark.parametrize("functional", [True, False])
def test_gradients_reach_the_actor_and_not_the_reference(functional):
    actor, reference = policy(), policy()
    moved(reference)
    loss = RFTFPPOLoss(actor, reference_actor=reference, kl_coeff=1.0, functional=functional)
    out = loss(loss.add_reference(decisions(actor)))
    out["loss_kl"].backward()
    gradients = [parameter.grad for parameter in loss.parameters()]
    assert all(gradient.abs().sum() > 0 for gradient in gradients if gradient.ndim == 2)
    held = list(loss.reference_actor.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in held)
    assert all(p.grad is None and p.requires_grad for p in reference.parameters())
    registered = {id(p) for p in loss.parameters()}
    assert not registered & {id(p) for p in held}
    assert not any("reference" in name for name in loss.state_dict())


def test_the_reference_stays_when_the_actor_moves():
    actor = policy()
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor)
    before = loss.add_reference(data.copy())["reference"]
    moved(actor)
    after = loss.add_reference(data.copy())["reference"]
    assert torch.equal(before["loc"], after["loc"])
    assert loss(data.update({"reference": after}))["kl_reference"] > 0


@pytest.mark.parametrize("head", HEADS)
def test_add_reference_writes_only_the_parameters_and_works_in_pieces(head):
    actor = policy(head)
    data = decisions(actor).reshape(2, 3)
    loss = RFTFPPOLoss(actor, reference_actor=policy(head))
    whole = loss.add_reference(data.copy())
    pieces = loss.add_reference(data.copy(), minibatch=4)
    expected = {"loc", "scale"} if head == "gaussian" else {"logits"}
    assert set(whole["reference"].keys()) == expected
    for key in expected:
        assert whole["reference", key].shape[:2] == (2, 3)
        assert torch.equal(whole[key], data[key])
        torch.testing.assert_close(pieces["reference", key], whole["reference", key])
    assert not any(value.requires_grad for value in whole["reference"].values())


def test_no_second_forward_of_the_actor():
    actor, calls = policy(), []
    loss = RFTFPPOLoss(actor, reference_actor=actor, functional=False)
    data = loss.add_reference(decisions(actor))
    actor[0].module.register_forward_hook(lambda *_: calls.append(1))
    loss(data)
    assert len(calls) == 1


def test_stock_gae_inside_the_loss():
    actor, critic = policy(), small_critic(CONFIG)
    loss = RFTFPPOLoss(actor, critic, reference_actor=actor)
    data = loss.add_reference(decisions(actor))
    expected = GAE(gamma=0.9, lmbda=0.8, value_network=critic)(data.copy())
    loss.make_value_estimator(gamma=0.9, lmbda=0.8)
    inside = loss(data.exclude("advantage", "value_target"))
    assert torch.equal(inside["loss_objective"], loss(expected)["loss_objective"])


@pytest.mark.parametrize(
    ("head", "names"), [("gaussian", {"loc", "scale"}), ("tokens", {"logits"})]
)
def test_in_keys_hold_the_reference_while_the_penalty_is_on(head, names):
    expected = {("reference", name) for name in names}
    assert expected <= set(RFTFPPOLoss(policy(head)).in_keys)
    assert not expected & set(RFTFPPOLoss(policy(head), kl_coeff=0).in_keys)


def test_the_reference_key_can_be_renamed():
    actor = policy()
    loss = RFTFPPOLoss(actor, reference_actor=actor)
    loss.set_keys(reference="prior")
    data = loss.add_reference(decisions(actor))
    assert data.get("reference", None) is None
    assert loss(data)["kl_reference"] == 0


def test_coefficient_zero_is_stock_clip_ppo():
    actor, critic = policy(), small_critic(CONFIG)
    data = decisions(actor)
    out = RFTFPPOLoss(actor, critic, kl_coeff=0)(data)
    stock = ClipPPOLoss(actor, critic)(data)
    assert set(out.keys()) == set(stock.keys())
    assert torch.equal(total(out), total(stock))


@pytest.mark.parametrize(
    ("kl", "coeff", "target", "expected"),
    [
        (0.031, 0.1, 0.02, 0.2),
        (0.029, 0.1, 0.02, 0.1),
        (0.02, 0.1, 0.02, 0.1),
        (0.014, 0.1, 0.02, 0.1),
        (0.013, 0.1, 0.02, 0.05),
        (0.0, 0.1, 0.02, 0.05),
        (9.0, 8.0, 0.02, 10.0),
        (0.0, 1e-4, 0.02, 1e-4),
        (9.0, 0.1, None, 0.1),
        (9.0, 0.0, 0.02, 0.0),
    ],
)
def test_adapt_kl(kl, coeff, target, expected):
    loss = RFTFPPOLoss(policy(), kl_coeff=coeff, kl_target=target)
    assert loss.adapt_kl(torch.tensor(kl)) == pytest.approx(expected)
    assert float(loss.kl_coeff) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("controller", "kl", "expected"),
    [
        (ConstantKLController(kl_coef=0.3), 9.0, 0.3),
        (AdaptiveKLController(init_kl_coef=0.3, target=0.1, horizon=2), 0.11, 0.3 * 1.05),
        (AdaptiveKLController(init_kl_coef=0.3, target=0.1, horizon=2), 9.0, 0.3 * 1.1),
        (AdaptiveKLController(init_kl_coef=0.3, target=0.1, horizon=2), 0.0, 0.3 * 0.9),
        (AdaptiveKLController(init_kl_coef=9.9, target=0.1, horizon=2), 9.0, 10.0),
    ],
)
def test_a_controller_of_torchrl_moves_the_coefficient(controller, kl, expected):
    loss = RFTFPPOLoss(policy(), kl_controller=controller)
    assert float(loss.kl_coeff) == pytest.approx(controller.coef)
    assert loss.adapt_kl(kl) == pytest.approx(expected)
    assert float(loss.kl_coeff) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("controller", "bounds", "expected"),
    [
        (None, (0.08, 0.15), 0.15),
        (AdaptiveKLController(init_kl_coef=0.1, target=0.1, horizon=1), (0.09, 0.11), 0.11),
    ],
)
def test_bounds_of_ones_own(controller, bounds, expected):
    given = {"kl_coeff": 0.1} if controller is None else {"kl_controller": controller}
    loss = RFTFPPOLoss(policy(), kl_bounds=bounds, **given)
    assert loss.adapt_kl(9.0) == pytest.approx(expected)


def test_a_controller_goes_on_from_the_saved_coefficient():
    def build():
        rule = AdaptiveKLController(init_kl_coef=0.3, target=0.1, horizon=1)
        return RFTFPPOLoss(policy(), kl_controller=rule)

    loss, resumed = build(), build()
    loss.adapt_kl(9.0)
    resumed.load_state_dict(loss.state_dict())
    assert resumed.adapt_kl(9.0) == loss.adapt_kl(9.0) == pytest.approx(0.3 * 1.2**2)


def test_names_of_grpo():
    actor = policy()
    loss = RFTFPPOLoss(actor, reference_actor=actor, kl_to_ref_coeff=0.5)
    plain = RFTFPPOLoss(actor, reference_actor=actor, kl_coeff=0.5)
    data = loss.add_reference(decisions(actor))
    moved(actor)
    out, expected = loss(data), plain(data)
    assert set(out.keys()) == set(loss.out_keys)
    assert torch.equal(out["loss_kl_to_ref"], expected["loss_kl"])
    assert torch.equal(out["kl_to_ref"], expected["kl_reference"])
    loss.kl_to_ref_coeff = 0.25
    assert loss.kl_coeff == 0.25 == loss.kl_to_ref_coeff
    assert isinstance(loss.kl_coeff, torch.Tensor)
    assert torch.equal(loss(data)["loss_kl_to_ref"], 0.5 * out["loss_kl_to_ref"])


def test_out_keys_follow_the_loss_and_can_be_selected():
    loss = RFTFPPOLoss(policy(), small_critic(CONFIG), kl_coeff=0)
    assert "entropy" in loss.out_keys
    loss.entropy_bonus = False
    assert "entropy" not in loss.out_keys
    assert loss.select_out_keys("loss_objective").out_keys == ["loss_objective"]


def test_in_keys_are_what_has_to_be_there():
    assert set(RFTFPPOLoss(policy(), kl_coeff=0).in_keys) == {
        keys.STATE,
        keys.TOKENS,
        keys.TOKEN_MASK,
        keys.CHUNK,
        keys.LOG_PROB,
        "advantage",
    }


def test_what_may_be_there_can_be_named_too():
    actor = policy()
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, small_critic(CONFIG), kl_coeff=0).select_out_keys("loss_objective")
    inputs = [*actor.in_keys, keys.CHUNK, keys.LOG_PROB, "advantage", "value_target"]
    given = {key if isinstance(key, str) else "_".join(key): data[key] for key in inputs}
    assert torch.equal(loss(**given), loss(data)["loss_objective"])


def test_the_coefficient_is_saved_and_does_not_change_in_forward():
    actor = policy()
    loss = RFTFPPOLoss(actor, reference_actor=actor)
    data = loss.add_reference(decisions(actor))
    for _ in range(3):
        loss(data)
    assert float(loss.kl_coeff) == pytest.approx(0.1)
    loss.adapt_kl(1.0)
    other = RFTFPPOLoss(policy(), reference_actor=actor)
    other.load_state_dict(loss.state_dict())
    assert float(other.kl_coeff) == pytest.approx(0.2)


def test_the_penalty_pulls_the_policy_back():
    torch.manual_seed(0)
    actor = policy()
    loss = RFTFPPOLoss(actor, reference_actor=actor, kl_coeff=1.0)
    data = loss.add_reference(decisions(actor))
    moved(actor)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    start = float(loss(data)["kl_reference"])
    for _ in range(50):
        optimizer.zero_grad()
        loss(data)["loss_kl"].backward()
        optimizer.step()
    assert float(loss(data)["kl_reference"]) < 0.1 * start


def test_moving_the_loss_moves_the_reference():
    actor = policy()
    loss = RFTFPPOLoss(actor, reference_actor=actor).to(torch.float64)
    assert {p.dtype for p in loss.reference_actor.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: RFTFPPOLoss(policy(), kl_bounds=(0.0, 1.0)),
            "kl_bounds must be 0 < low <= high, got (0.0, 1.0).",
        ),
        (
            lambda: RFTFPPOLoss(policy(), kl_coeff=20.0),
            "kl_coeff must be 0 (off) or inside kl_bounds (0.0001, 10.0), got 20.0.",
        ),
        (
            lambda: RFTFPPOLoss(policy(), kl_coeff=0.1, kl_to_ref_coeff=0.1),
            "kl_to_ref_coeff is another name of kl_coeff: give one of them.",
        ),
        (
            lambda: setattr(RFTFPPOLoss(policy(), kl_coeff=0), "kl_coeff", 0.1),
            "kl_coeff was 0 when this loss was built, which left the divergence out: build it "
            "with another.",
        ),
        (
            lambda: RFTFPPOLoss(policy(), kl_target=0.0),
            "kl_target must be above 0, or None to keep kl_coeff: got 0.0.",
        ),
        (
            lambda: RFTFPPOLoss(policy()).adapt_kl(float("nan")),
            "kl must be finite, got nan: the policy diverged before this step.",
        ),
        (
            lambda: RFTFPPOLoss(policy()).add_reference(decisions(policy())),
            "this loss has no reference: pass reference_actor when you build it.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()


def test_a_missing_reference_tells_what_to_call():
    actor = policy()
    with pytest.raises(KeyError) as caught:
        RFTFPPOLoss(actor, reference_actor=actor)(decisions(actor))
    assert caught.value.args == (
        "kl_coeff is 0.1, and the data hold no reference distribution at 'reference': call "
        "add_reference(tensordict) once before the update epochs, or set kl_coeff=0.",
    )


@pytest.mark.parametrize("head", HEADS)
def test_the_log_ratio_is_of_the_actions_in_the_data(head):
    actor = policy(head)
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, kl_coeff=0)
    torch.testing.assert_close(loss.log_ratio(data), torch.zeros(6))
    moved(actor)
    expected = actor.get_dist(data.copy()).log_prob(data[keys.CHUNK]) - data[keys.LOG_PROB]
    found = loss.log_ratio(data, minibatch=4)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


def test_the_log_ratio_is_not_to_the_proximal_policy():
    actor = policy()
    data = decisions(actor)
    loss = RFTFPPOLoss(actor, reference_actor=actor, delay_actor=True)
    data[keys.LOG_PROB] = data[keys.LOG_PROB] - 1
    torch.testing.assert_close(loss.log_ratio(data), torch.ones(6))
    assert loss.delay_actor


def test_no_decisions_have_no_ratio_and_no_reference():
    actor = policy()
    data, loss = decisions(actor)[:0], RFTFPPOLoss(actor, reference_actor=actor)
    assert loss.log_ratio(data).shape == (0,)
    assert loss.add_reference(data) is data


def test_a_state_with_a_divergence_needs_a_loss_with_one():
    actor = policy()
    with_kl = RFTFPPOLoss(actor, reference_actor=actor, kl_coeff=0.5).state_dict()
    with pytest.raises(RuntimeError, match=r"kl_coeff is 0\.5 in the state, and was 0 when"):
        RFTFPPOLoss(actor, kl_coeff=0).load_state_dict(with_kl)
    loss = RFTFPPOLoss(actor, reference_actor=actor, kl_coeff=0.5)
    loss.load_state_dict({**with_kl, "kl_coeff": torch.zeros(())})
    assert loss.adapt_kl(9.0) == 0, "it was switched off"
