"""What every policy on a vision-language model promises, on every family and with every head."""

from dataclasses import replace

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from torchrl.data import Composite, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from rftf_torchrl import RFTFPPOLoss, keys, load_policy, save_policy

pytest.importorskip("transformers")
from rftf_torchrl import QueryNetwork

FAMILIES = ["smolvlm", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl"]
HEADS = ["tokens", "gaussian", "flow"]
CHUNK, LOG_PROB = ("vla_action", "chunk"), ("vla_action", "log_probs")
PAIRS = [(f, h) for f in FAMILIES for h in HEADS if h != "flow" or f in FAMILIES[::2]]
every_policy = pytest.mark.parametrize(("family", "head"), PAIRS, ids=lambda value: value)


PARAMETERS = {
    "tokens": {"logits": (2, 3, 16)},
    "gaussian": {"loc": (2, 3), "scale": (2, 3)},
    "flow": {keys.FLOW_PATH: (4, 2, 3), keys.FLOW_LOC: (4, 2, 3)},
}


def written(policy, data, head):
    """What the policy makes of observations, without chance: a flow along one path for all."""
    if head != "flow":
        return policy(data.clone())["logits" if head == "tokens" else "loc"]
    path = torch.linspace(-1, 1, 24).reshape(4, 2, 3).expand(*data.batch_size, 4, 2, 3)
    given = data.clone().update({"vla_action": {"flow_path": path, "chunk": path[..., -1, :, :]}})
    return policy.get_dist(given).loc


@pytest.fixture
def make(described, checkpoint, observations):
    """A function to a policy and five observations as it reads them."""

    def policy(family, head, **options):
        spec = described(family, head=head, **{"state_dim": 4, **options})
        torch.manual_seed(0)
        return spec.load(checkpoint(family)), spec.observation_transform()(observations.clone())

    return policy


@every_policy
def test_shapes_and_dtypes(make, head, family):
    policy, data = make(family, head)
    for batch in (data, data[0], data[:4].reshape(2, 2)):
        out = policy(batch.exclude("language_instruction").clone())
        shape = tuple(batch.batch_size)
        assert out[CHUNK].shape == (*shape, 2, 3)
        assert out[LOG_PROB].shape == shape
        assert out[CHUNK].dtype == out[LOG_PROB].dtype == torch.float32
        for key, event in PARAMETERS[head].items():
            assert out[key].shape == (*shape, *event)
            assert out[key].dtype == torch.float32
    assert all(isinstance(value, torch.Tensor) for value in data["vla_inputs"].values())


@every_policy
def test_the_mode_is_deterministic_and_samples_are_not(make, head, family):
    policy, data = make(family, head)
    found = []
    for _ in range(2):
        torch.manual_seed(1)  # a flow starts at noise in any mode
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            found.append(policy(data.clone()))
    first, second = found
    assert torch.equal(first[CHUNK], second[CHUNK])
    if head == "gaussian":
        assert torch.equal(first[CHUNK], first["loc"])
    elif head == "flow":
        assert torch.equal(first[CHUNK], first[keys.FLOW_MODE])
    else:
        centres = torch.linspace(-1, 1, 16)
        torch.testing.assert_close(first[CHUNK], centres[first["logits"].argmax(-1)])
    assert not torch.equal(policy(data.clone())[CHUNK], policy(data.clone())[CHUNK])


@every_policy
def test_batched_equals_one_by_one(make, head, family):
    policy, data = make(family, head)
    alone = torch.stack([written(policy, row, head) for row in data])
    torch.testing.assert_close(alone, written(policy, data, head), atol=1e-6, rtol=1e-5)


@every_policy
def test_padding_does_not_leak(make, described, observations, head, family):
    policy, data = make(family, head)
    longer = replace(described(family, head=head, state_dim=4), prompt_tokens=50)
    padded = longer.observation_transform()(observations.clone())
    extra = padded["vla_inputs", "input_ids"].shape[-1] - data["vla_inputs", "input_ids"].shape[-1]
    assert extra == 18
    padded["vla_inputs", "input_ids"][~padded["vla_inputs", "attention_mask"]] = 10
    found, expected = written(policy, padded, head), written(policy, data, head)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@every_policy
def test_every_input_counts(make, head, family):
    policy, data = make(family, head)
    before = written(policy, data, head)
    for entry in (
        ("vla_inputs", "pixel_values"),
        ("vla_inputs", "input_ids"),
        ("observation", "state"),
    ):
        changed = data.clone()
        changed[entry] = data[entry].flip(0)
        if entry[1] == "input_ids":  # with the mask and the positions that belong to them
            for name in ("attention_mask", "position_ids"):
                changed["vla_inputs", name] = data["vla_inputs", name].flip(0)
        after = written(policy, changed, head)
        assert (after - before).abs().amax((-1, -2))[[0, 1, 3, 4]].min() > 1e-5


@every_policy
def test_a_saved_policy_needs_nothing_else(make, described, checkpoint, tmp_path, head, family):
    policy, data = make(family, head)
    spec = described(family, head=head, state_dim=4)
    save_policy(policy, spec, tmp_path / "policy.safetensors")
    loaded, found = load_policy(tmp_path / "policy.safetensors")
    assert found == spec
    raw = data.select("observation", "language_instruction")
    again = found.observation_transform()(raw)
    assert torch.equal(written(loaded, again, head), written(policy, data, head))


def update_ready(policy, data):
    """Data of a rollout, as the loss takes it."""
    with torch.no_grad():
        data = policy(data.exclude("language_instruction").clone())
    data["advantage"] = torch.linspace(-1, 1, 5).unsqueeze(-1)
    return data


@every_policy
def test_the_ratio_of_the_first_minibatch_is_one(make, head, family):
    policy, data = make(family, head)
    policy.train()
    loss_module = RFTFPPOLoss(policy, reference_actor=policy)
    losses = loss_module(loss_module.add_reference(update_ready(policy, data)))
    assert float(losses["mean_ratio"]) == 1.0
    assert float(losses["max_ratio"]) == 1.0
    assert float(losses["kl_reference"]) == 0.0


@every_policy
def test_the_ratio_in_bf16_is_one_within_a_bound(make, head, family):
    """Acting in float32, learning in bfloat16: what is apart is the rounding of the network."""
    policy, data = make(family, head)
    data = update_ready(policy, data)
    loss_module = RFTFPPOLoss(policy, kl_coeff=0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss_module(data)
        log_prob = policy.get_dist(data.clone()).log_prob(data[CHUNK])
    assert 0 < abs(float(losses["max_ratio"]) - 1) < 0.05
    assert log_prob.dtype == torch.float32


@every_policy
def test_weights_in_bf16(make, head, family):
    """The model's weights are bfloat16, what is added to it and what comes out float32."""
    policy, data = make(family, head, dtype="bfloat16")
    network = next(m for m in policy.modules() if isinstance(m, QueryNetwork))
    assert {weight.dtype for weight in network.backbone.parameters()} == {torch.bfloat16}
    assert network.queries.dtype == network.state.weight.dtype == torch.float32
    data = update_ready(policy, data)
    assert {data[key].dtype for key in (LOG_PROB, *PARAMETERS[head])} == {torch.float32}
    losses = RFTFPPOLoss(policy, kl_coeff=0)(data)
    assert float(losses["max_ratio"]) == 1.0


TRAINED = {
    "all": (True, True),
    "language": (False, True),
    "head": (False, False),
}


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("family", ["smolvlm", "paligemma", "qwen2_5_vl"])
@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_what_is_trained_and_nothing_else(make, family, head, trained):
    policy, data = make(family, head, trained=trained)
    loss_module = RFTFPPOLoss(policy, kl_coeff=0)
    losses = loss_module(update_ready(policy, data))
    (losses["loss_objective"] + losses["loss_entropy"]).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad
    }
    # Without a token head, the model's output layer has no part unless it is tied.
    unused = [name for name, gradient in gradients.items() if gradient is None]
    expected = head != "tokens" and trained != "head" and family != "paligemma"
    assert [name.split(".")[-2] for name in unused] == ["lm_head"] * expected
    reached = {name for name, gradient in gradients.items() if gradient is not None}
    assert all(gradients[name].abs().max() > 0 for name in reached if "k_proj.bias" not in name)
    tower, language = TRAINED[trained]
    assert any("vision" in name or "visual" in name for name in reached) == tower
    assert any("layers" in name and "vis" not in name for name in reached) == language
    frozen = [parameter for parameter in policy.parameters() if not parameter.requires_grad]
    assert all(parameter.grad is None for parameter in frozen)
    assert any(name.endswith(".network.queries") for name in reached)
    assert any("velocity" in name for name in reached) == (head == "flow")


@pytest.mark.parametrize("head", ["tokens", "gaussian"])  # of a flow's path, the last step alone
def test_actions_that_were_not_executed_do_not_count(make, head):
    policy, data = make("paligemma", head)
    data = update_ready(policy, data)
    whole = policy.get_dist(data.clone()).log_prob(data[CHUNK])
    torch.testing.assert_close(whole, data[LOG_PROB])
    data["vla_action", "executed"] = torch.tensor([[True, False]]).expand(5, 2)
    first = policy.get_dist(data.clone()).log_prob(data[CHUNK])
    data["vla_action", "executed"] = torch.tensor([[False, True]]).expand(5, 2)
    second = policy.get_dist(data.clone()).log_prob(data[CHUNK])
    torch.testing.assert_close(first + second, whole)


def test_temperature_divides_the_logits(make):
    cold, data = make("smolvlm", "tokens")
    warm, _ = make("smolvlm", "tokens", temperature=2.0)
    torch.testing.assert_close(warm(data.clone())["logits"] * 2, cold(data.clone())["logits"])


@pytest.mark.parametrize("family", ["smolvlm", "paligemma", "qwen2_5_vl"])
def test_cameras_of_two_sizes(described, checkpoint, observations, family):
    """Each image becomes what it becomes alone, in the environment's spec too."""
    wrist = observations["observation", "image"][..., :24, :24].clone()
    spec = described(family, wrist_image=True)
    transform = spec.observation_transform()
    observations["observation", "wrist_image"] = wrist
    data = transform(observations.clone())
    found = data["vla_inputs", "pixel_values"]
    processor = described(family).processor()
    row = {"images": wrist[1][None, None], "instructions": ["open the drawer"]}
    alone = processor(**row)["pixel_values"]
    whole = processor(observations["observation", "image"][1][None, None], ["open the drawer"])
    assert torch.equal(found[1], torch.cat([whole["pixel_values"][0], alone[0]]))
    assert spec.load(checkpoint(family))(data)[CHUNK].shape == (5, 2, 3)
    sizes = {"image": (3, 40, 40), "wrist_image": (3, 24, 24)}
    seen = Composite({k: Unbounded(size, dtype=torch.uint8) for k, size in sizes.items()})
    written = transform.transform_observation_spec(Composite(observation=seen))
    assert written["vla_inputs", "pixel_values"].shape == found.shape[1:]


def test_two_pictures(make, described, checkpoint, observations):
    observations["observation", "wrist_image"] = observations["observation", "image"].flip(0)
    for family in ("smolvlm", "paligemma", "qwen2_5_vl"):
        spec = described(family, head="gaussian", wrist_image=True)
        policy = spec.load(checkpoint(family))
        data = spec.observation_transform()(observations.clone())
        batched = policy(data.clone())["loc"]
        alone = torch.stack([policy(row.clone())["loc"] for row in data])
        torch.testing.assert_close(alone, batched, atol=1e-6, rtol=1e-5)
        swapped = TensorDict(
            {
                "observation": {
                    "image": observations["observation", "wrist_image"],
                    "wrist_image": observations["observation", "image"],
                },
                "language_instruction": observations["language_instruction"],
            },
            [5],
        )
        assert not torch.allclose(policy(spec.observation_transform()(swapped))["loc"], batched)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_an_image_of_another_shape_and_as_many_tokens_has_its_own_positions(described, family):
    spec = described(family, head="gaussian", state_dim=4)
    written = spec.observation_transform()
    for height, width in ((32, 128), (128, 32)):
        image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        data = TensorDict({"observation": {"image": image, "state": torch.zeros(1, 4)}}, [1])
        data["language_instruction"] = NonTensorStack("push")
        found, expected = written(data.clone()), spec.observation_transform()(data.clone())
        for name in ("input_ids", "position_ids"):
            assert torch.equal(found["vla_inputs", name], expected["vla_inputs", name])
    assert (
        found["vla_inputs", "image_grid_thw"][0, 0, 1]
        > found["vla_inputs", "image_grid_thw"][0, 0, 2]
    )
