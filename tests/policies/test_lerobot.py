"""LeRobot's own policies as actors; with LeRobot only."""

import copy
import json
import pickle
import re
from importlib import import_module

import pytest
import torch
from tensordict.nn import InteractionType, set_interaction_type

pytest.importorskip("lerobot")

from _lerobot import INPUTS, act_config, observation, random_stats, smolvla_config
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from torchrl.envs import ParallelEnv, TransformedEnv

from rftf_torchrl import LeRobotSpec, RFTFPPOLoss, keys, lerobot_actor

POLICIES = ["act", "smolvla"]


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Name -> spec of every tiny policy, with statistics."""
    smolvla = smolvla_config(tmp_path_factory.mktemp("smolvlm"))
    configs = {"act": act_config(), "smolvla": smolvla}
    return {
        name: LeRobotSpec.from_config(config, INPUTS, stats=random_stats(), chunk_size=3)
        for name, config in configs.items()
    }


@pytest.fixture(scope="module")
def build(specs):
    def built(name):
        torch.manual_seed(0)
        return specs[name].build()

    return built


def inputs(spec, *batch):
    return spec.observation_transform()(observation(*batch)).select("lerobot")


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_shapes(specs, build, name, batch):
    out = build(name)(inputs(specs[name], *batch))
    assert out["vla_action", "chunk"].shape == (*batch, 3, 4)
    assert out["vla_action", "log_probs"].shape == batch
    assert out["vla_action", "chunk"].dtype == out["vla_action", "log_probs"].dtype
    assert out["loc"].dtype == torch.float32


@pytest.mark.parametrize("name", POLICIES)
def test_the_deterministic_chunk_is_lerobots_own(specs, build, name):
    """As lerobot's own evaluation computes it: preprocessor, policy, postprocessor."""
    spec, data = specs[name], observation(3)
    actor = build(name)
    policy = next(m for m in actor.modules() if hasattr(m, "predict_action_chunk"))
    stats = {f: {n: torch.tensor(v) for n, v in s.items()} for f, s in spec.stats.items()}
    before, after = make_pre_post_processors(policy.config, dataset_stats=stats)
    batch = {k: data[v].float() / (255 if "image" in k else 1) for k, v in INPUTS.items()}
    batch["task"] = data[keys.INSTRUCTION_TEXT]
    noise = {} if name == "act" else {"noise": torch.zeros(3, 4, 8)}
    expected = after(policy.predict_action_chunk(before(batch), **noise))
    with set_interaction_type(InteractionType.DETERMINISTIC), torch.no_grad():
        found = actor(spec.observation_transform()(data))["vla_action", "chunk"]
    assert torch.equal(found, expected[:, :3])


@pytest.mark.parametrize("name", POLICIES)
def test_batched_equals_one_by_one(specs, build, name):
    actor, data = build(name), inputs(specs[name], 3)
    batched = actor(data.copy())["loc"]
    for row in range(3):
        torch.testing.assert_close(actor(data[row])["loc"], batched[row], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", POLICIES)
def test_gradients_reach_what_is_trainable_and_nothing_else(specs, build, name):
    actor = build(name).train()
    actor(inputs(specs[name], 2))["vla_action", "log_probs"].sum().backward()
    trained = {n for n, p in actor.named_parameters() if p.requires_grad}
    reached = {n for n, p in actor.named_parameters() if p.grad is not None}
    assert trained == reached
    assert len(trained) > 20
    if name == "smolvla":  # train_expert_only
        assert not any(".vlm." in n for n in trained)


def test_a_second_no_grad_around_the_integration_as_pi0_has_it(specs, build, monkeypatch):
    from lerobot.policies.smolvla.modeling_smolvla import VLAFlowMatching

    actor, data = build("smolvla"), inputs(specs["smolvla"], 2)
    expected = actor(data.copy())["loc"]
    sample = torch.no_grad()(VLAFlowMatching.sample_actions)
    monkeypatch.setattr(VLAFlowMatching, "sample_actions", sample)
    found = actor(data.copy())["loc"]
    assert torch.equal(found, expected)
    assert found.requires_grad
    assert not any("sample_actions" in vars(module) for module in actor.modules())


@pytest.mark.parametrize("name", POLICIES)
def test_the_ratio_is_one_at_the_first_minibatch_and_a_step_changes_it(specs, build, name):
    actor = build(name).train()
    with torch.no_grad():
        data = actor(inputs(specs[name], 4))
    data["advantage"] = torch.tensor([[1.0], [-1.0], [2.0], [0.5]])
    loss = RFTFPPOLoss(
        actor,
        None,
        reference_actor=actor,
        kl_coeff=0.1,
        critic_coeff=None,
        normalize_advantage=False,
    )
    loss.add_reference(data)
    out = loss(data)
    assert float(out["max_ratio"]) == float(out["mean_ratio"]) == 1.0
    assert float(out["kl_reference"]) == 0.0
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=1e-3)
    out["loss_objective"].backward()
    optimizer.step()
    after = loss(data)
    assert abs(float(after["mean_ratio"]) - 1.0) > 1e-4
    assert float(after["kl_reference"]) > 0


@pytest.mark.parametrize("name", POLICIES)
def test_a_spec_is_json_and_its_policy_a_state_dict(specs, build, name):
    spec, actor = specs[name], build(name)
    again = LeRobotSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    torch.manual_seed(1)
    other = again.build()
    data = inputs(spec, 2)
    assert not torch.equal(other(data.copy())["loc"], actor(data.copy())["loc"])
    other.load_state_dict(actor.state_dict())
    found = again.observation_transform()(observation(2))
    assert torch.equal(other(found)["loc"], actor(data.copy())["loc"])


@pytest.mark.parametrize("name", POLICIES)
def test_a_checkpoint_of_lerobot(specs, name, tmp_path):
    spec = specs[name]
    config = spec.lerobot_config()
    torch.manual_seed(2)
    policy = get_policy_class(name)(config)
    policy.save_pretrained(tmp_path)
    for processor in spec.processors():
        processor.save_pretrained(tmp_path)
    read = LeRobotSpec.from_pretrained(str(tmp_path), INPUTS, chunk_size=3)
    assert read.stats == spec.stats
    data = inputs(spec, 2)
    original = lerobot_actor(policy, chunk_size=3, unnormalise=spec.processors()[1])
    found = read.build_pretrained()(data.copy())["loc"]
    assert torch.equal(found, original(data.copy())["loc"])


@pytest.mark.parametrize("name", POLICIES)
def test_workers_can_have_policy_and_transform(specs, build, name):
    spec, actor = specs[name], build(name)
    transform = spec.observation_transform()
    data = transform(observation(2))
    for copied in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert torch.equal(copied(actor)(data.copy())["loc"], actor(data.copy())["loc"])
        again = copied(transform)(observation(2))
        assert torch.equal(
            again["lerobot", "observation", "state"], data["lerobot", "observation", "state"]
        )


def test_normalisation_in_numbers():
    stats = {
        "observation.state": {"mean": [1.0] * 5, "std": [2.0] * 5},
        "action": {"mean": [0.5] * 4, "std": [0.25] * 4},
    }
    spec = LeRobotSpec.from_config(act_config(), INPUTS, stats=stats)
    data = observation(2)
    data["observation", "state"] = torch.full((2, 5), 4.0)
    written = spec.observation_transform()(data)["lerobot", "observation"]
    torch.testing.assert_close(written["state"], torch.full((2, 5), 1.5))
    torch.testing.assert_close(
        written["images", "camera1"], data["observation", "image"].float() / 255
    )
    actor = spec.build()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
    out = actor(spec.observation_transform()(data))
    assert torch.equal(out["loc"], torch.full((2, 4, 4), 0.5))


def test_smolvla_does_without_a_camera(specs):
    described = copy.deepcopy(specs["smolvla"].config)
    camera = described["input_features"]["observation.images.camera1"]
    described["input_features"]["observation.images.camera2"] = camera
    spec = LeRobotSpec(described, INPUTS, specs["smolvla"].stats, chunk_size=3)
    torch.manual_seed(0)
    alone = spec.build()(inputs(spec, 2))["loc"]
    torch.manual_seed(0)
    assert torch.equal(alone, specs["smolvla"].build()(inputs(specs["smolvla"], 2))["loc"])
    message = (
        "inputs must name a key for each input of the LeRobot policy, "
        "['observation.images.camera1', 'observation.images.camera2', 'observation.state'] (of "
        "the cameras, for one), got ['observation.state']."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LeRobotSpec(described, {"observation.state": keys.STATE})


@pytest.mark.parametrize("name", POLICIES)
def test_bf16_keeps_log_probabilities_in_float32_and_the_ratio_near_one(specs, build, name):
    actor, data = build(name), inputs(specs[name], 4)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            data = actor(data)
        data["advantage"] = torch.ones(4, 1)
        loss = RFTFPPOLoss(actor, kl_coeff=0, critic_coeff=None, normalize_advantage=False)
        assert data["vla_action", "log_probs"].dtype == torch.float32
        assert float(loss(data)["max_ratio"]) == 1.0
        half = loss(data[:2])["max_ratio"]
    assert abs(float(half) - 1) < 0.05


def test_adapters_by_peft(specs):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    policy = ACTPolicy(specs["act"].lerobot_config())
    data = inputs(specs["act"], 2)
    before = lerobot_actor(policy.requires_grad_(False))(data.copy())["loc"]
    adapters = peft.LoraConfig(r=2, target_modules=["linear1", "linear2"])
    actor = lerobot_actor(peft.inject_adapter_in_model(adapters, policy))
    out = actor(data.copy())
    torch.testing.assert_close(out["loc"], before)
    out["vla_action", "log_probs"].sum().backward()
    trained = {n for n, p in actor.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in actor.named_parameters() if p.grad is not None}
    assert all(".lora_" in n or n.endswith("raw") for n in trained)
    for module in actor.modules():
        if hasattr(module, "enable_adapters"):
            module.enable_adapters(False)
    assert torch.equal(actor(data.copy())["loc"], before)


@pytest.mark.metaworld
@pytest.mark.parametrize("workers", [0, 1])
def test_meta_world_by_the_episode_collector(workers):
    from _lerobot import LeRobotFactory

    from rftf_torchrl import Episode, EpisodeCollector, MetaWorldFactory

    spec = LeRobotSpec.from_config(act_config(state_dim=4), INPUTS, chunk_size=2)
    factory = LeRobotFactory(MetaWorldFactory("train", 32, 2, 8, 3), spec.to_dict())
    actor = spec.build()
    episodes = [Episode("window-open", 1), Episode("window-close", 2)]
    with EpisodeCollector(factory, actor, workers=workers, timeout=120) as collector:
        data = collector.collect(episodes, seed=0)
    assert data["vla_action", "chunk"].shape == (6, 2, 4)
    assert all(isinstance(value, torch.Tensor) for value in data.values(True, True))
    again = actor.get_dist(data.copy()).log_prob(data["vla_action", "chunk"])
    torch.testing.assert_close(again, data["vla_action", "log_probs"], atol=1e-4, rtol=0)


def test_environment_and_parallel_environment(specs, build):
    from _lerobot import ToyRobot

    spec = specs["smolvla"]

    def make():
        return TransformedEnv(ToyRobot(), spec.observation_transform())

    env = make()
    for key in spec.observation_transform().out_keys:
        assert env.observation_spec[key].shape == env.reset()[key].shape
    rollout = env.rollout(2, build("smolvla"))
    assert rollout["vla_action", "chunk"].shape == (2, 3, 4)
    with_workers = ParallelEnv(2, make, mp_start_method="spawn")
    try:
        both = with_workers.rollout(2, build("smolvla"))
    finally:
        with_workers.close()
    assert both["vla_action", "chunk"].shape == (2, 2, 3, 4)
    tokens = ("lerobot", "observation", "language", "tokens")
    assert torch.equal(both[tokens][0], rollout[tokens])


def test_bad_input(specs):
    config = act_config()
    policy = ACTPolicy(config)
    cases = [
        (
            lambda: LeRobotSpec.from_config(config, {"observation.state": keys.STATE}),
            "inputs must name a key for each input of the LeRobot policy, "
            "['observation.images.camera1', 'observation.state'], got ['observation.state'].",
        ),
        (
            lambda: lerobot_actor(policy, chunk_size=9),
            "chunk_size must be 1 to 4, the chunk of this 'act' policy, got 9.",
        ),
        (
            lambda: specs["act"].build_pretrained(),
            "this spec has no source: make it by LeRobotSpec.from_pretrained.",
        ),
        (
            lambda: lerobot_actor(policy, predict=lambda p, b: p.predict_action_chunk(b))(
                inputs(specs["act"], 2)
            ),
            "no gradient reaches the 'act' policy, because its prediction switches gradients off: "
            "pass predict=, a function of policy and batch that does not, or run it under "
            "torch.no_grad().",
        ),
    ]
    for call, message in cases:
        end = r"(\nFailed while executing module '0'\.)?$"  # tensordict names the module
        with pytest.raises(ValueError, match=f"^{re.escape(message)}{end}"):
            call()
    with pytest.raises(KeyError) as caught:
        specs["smolvla"].observation_transform()(observation(2).exclude(keys.INSTRUCTION_TEXT))
    assert caught.value.args == (
        "'language_instruction' is missing, and the LeRobot policy reads it: the environment must "
        "write it, or LeRobotSpec.inputs must name another entry.",
    )


def test_a_diffusion_policy_is_refused():
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    class Policy(torch.nn.Module):
        config = DiffusionConfig(device="cpu")

    message = (
        "the chunk of a 'diffusion' policy is no function of one observation (it needs past ones, "
        "or a sample of its own): pass predict=, a function of policy and batch."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lerobot_actor(Policy())


def classifier_module(name):
    """A module of LeRobot's reward classifier, which 0.6 has moved."""
    try:
        return import_module(f"lerobot.rewards.classifier.{name}")
    except ModuleNotFoundError:
        return import_module(f"lerobot.policies.sac.reward_model.{name}")


def test_a_reward_classifier_as_value_model(tmp_path):
    from transformers import ViTConfig, ViTModel

    from rftf_torchrl import ValueReward, score_module

    ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=16,
        )
    ).save_pretrained(tmp_path)
    config = classifier_module("configuration_classifier").RewardClassifierConfig(
        model_name=str(tmp_path),
        model_type="transformer",
        num_cameras=1,
        hidden_dim=8,
        device="cpu",
        input_features={
            "observation.images.camera1": act_config().image_features["observation.images.camera1"]
        },
    )
    classifier = classifier_module("modeling_classifier").Classifier(config).eval()

    def probability(model, batch):
        return model.predict([batch["observation.images.camera1"]]).probabilities

    model = score_module(classifier, {"observation.images.camera1": keys.IMAGE}, method=probability)
    data = observation(3).select("observation")
    following = observation(3).select("observation")
    following["success"] = following["terminated"] = torch.zeros(3, 1, dtype=torch.bool)
    data["next"] = following
    rewarded = ValueReward(model, gamma=0.5)(data)
    pictures = data["observation", "image"].float() / 255
    expected = classifier.predict([pictures]).probabilities.unsqueeze(-1)
    assert torch.equal(rewarded["temporal_value"], expected)
    assert not any(p.requires_grad for p in classifier.parameters())
