"""Every YAML file composes, and a wrong setting is named before anything runs."""

import re
from pathlib import Path

import pytest
from _composed import by_hydra, composed
from hydra.errors import ConfigCompositionException

from rftf_torchrl import ConfigError

CONF = Path(__file__).parents[2] / "recipes" / "conf"
GROUPS = [
    pytest.param(
        choice := file.relative_to(CONF).with_suffix(""),
        marks=[pytest.mark.libero] * choice.name.startswith("libero"),
    )
    for file in sorted(CONF.glob("*/*.yaml"))
    if file.parent.name != "study"
]
PRIMARY = sorted({p.stem for p in CONF.glob("*.yaml")} - {"compare", "study_values"})


@pytest.mark.parametrize("name", ["config", "calvin"])
def test_the_tests_compose_what_a_shell_does(name):
    """Words before and after values, values in braces, and new ones."""
    overrides = ["ppo.epochs=3", "env=calvin", "policy.options.config={arm_dim: 3}", "policy=gr_mg"]
    overrides += ["+reward.options.terminal=keep", "output=x", "ppo.tasks=null"]
    found, expected = composed(*overrides, name=name), by_hydra(*overrides, name=name)
    assert found == expected
    expected._metadata.resolver_cache = found._metadata.resolver_cache  # the seconds of now
    assert found._metadata == expected._metadata
    assert found.env.kind == "calvin"
    assert found.policy.options.config.arm_dim == 3


@pytest.mark.parametrize("choice", GROUPS, ids=str)
def test_every_choice_of_every_group_composes(configure, choice):
    if choice.name == "wandb":
        pytest.importorskip("wandb")
    config = configure(f"{choice.parent}={choice.name}", "output=somewhere")
    assert config.output == "somewhere"


@pytest.mark.parametrize("name", PRIMARY)
def test_every_primary_config_composes(configure, name):
    assert configure(name=name).env.tasks


def test_the_words_of_the_readme_mean_what_they_say(configure):
    assert configure("reward=sparse").reward.dense_weight == 0
    assert configure("reward=rftf").reward.dense_weight > 0
    assert configure("balance=none").balance.kind == "none"
    assert configure("value=ranking_failures").value.failures > 0
    assert configure("value=shuffled").value.shuffle_time
    assert configure("value=ranking_rollouts").value.successes
    assert configure("value=ranking_rollouts").value.failures > 0
    assert configure("policy=small").policy == configure("policy=gaussian").policy
    assert (
        configure("policy=small", "policy.options.head=flow").policy
        == configure("policy=flow").policy
    )
    assert configure("env=metaworld_state").env.image_size is None


@pytest.mark.parametrize(("words", "pairs"), [([], 1), (["env=metaworld_five"], 2)])
def test_the_quick_start_has_same_scene_pairs(configure, words, pairs):
    from rftf_torchrl import SAME_SCENE

    tasks = set(configure(*words, name="quickstart").env.tasks)
    assert sum(set(pair) <= tasks for pair in SAME_SCENE) == pairs


def test_calvin_has_all_tasks_and_no_more_time_than_the_benchmark(configure):
    from rftf_torchrl import SUBTASK_STEPS
    from rftf_torchrl.calvin.tasks import TASKS

    pixels, state, whole = (
        configure("env=calvin"), configure("env=calvin_state"), configure(name="calvin")
    )  # fmt: skip
    assert pixels.env.image_size == 64
    assert state.env.image_size is None
    assert {**vars(whole.env), "options": {}} == {**vars(state.env), "options": {}}
    for config in (pixels, state, whole):
        assert config.env.kind == "calvin"
        assert config.env.tasks == list(TASKS)
        assert config.env.chunk_size * config.env.horizon <= SUBTASK_STEPS
        assert config.env.options["steps_per_subtask"] == SUBTASK_STEPS


def test_the_policy_of_calvins_recipe_makes_room_for_another(configure):
    own = configure(name="calvin")
    assert own.policy.options["head"] == "arm_gripper"
    assert own.ppo.minibatch == 512
    for word in ("tokens", "smolvlm"):
        other = configure("env=calvin", f"policy={word}", name="calvin")
        alone = configure("env=calvin", f"policy={word}")
        assert (other.policy, other.cloning) == (alone.policy, alone.cloning)
        assert other.ppo.minibatch == alone.ppo.minibatch


def test_a_few_episodes_in_a_scene_that_the_policy_has_not_seen(configure):
    few, whole = configure(name="calvin_few"), configure(name="calvin")
    assert few.env.options == {**whole.env.options, "demo_scenes": "ABC"}
    assert few.env.options["scene"] not in few.env.options["demo_scenes"]
    rounds = few.ppo.iterations + few.ppo.critic_warmup
    assert rounds * few.ppo.episodes_per_task * len(few.ppo.tasks) == 192
    assert few.ppo.env_steps < whole.ppo.env_steps / 5
    assert (few.value.failures, few.value.successes) == (0, False), "rollouts would cost episodes"
    assert few.cloning == whole.cloning
    assert few.policy == whole.policy
    assert few.output != whole.output


def test_calvin_from_pixels_in_a_small_size(configure):
    pixels, whole = configure(name="calvin_pixels"), configure(name="calvin")
    larger = configure("env=calvin").env
    assert {**vars(pixels.env), "options": {}} == {**vars(larger), "options": {}}
    assert pixels.policy == whole.policy
    assert pixels.ppo.tasks == whole.ppo.tasks
    assert pixels.ppo.env_steps < whole.ppo.env_steps
    assert pixels.output != whole.output


def test_settings_that_calvin_does_not_have_are_refused(configure):
    expected = (
        "the configuration can't be run:\n"
        "  - env.tasks: calvin has no task 'open_draw'; did you mean 'open_drawer'?\n"
        "  - env.options.demo_scenes='AE': expected letters among ABCD, each once"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        configure("env=calvin", "env.tasks=[open_draw]", "env.options.demo_scenes=AE")
    with pytest.raises(ConfigError, match="demo_scenes='AAB': expected letters among ABCD, each"):
        configure("env=calvin", "env.options.demo_scenes=AAB")
    unknown = (
        "env.options.action_repeat: there is no such setting, choose from scene, wrist_size, "
        "checkout, demo_chains, demo_scenes, held_out_chains, start_chains, benchmark_chains, "
        "development_chains, steps_per_subtask"
    )
    with pytest.raises(ConfigError, match=re.escape(unknown)):
        configure("env=calvin", "+env.options.action_repeat=3")


def test_no_scene_is_passed_over_for_want_of_chains(configure):
    expected = (
        "env.options.demo_chains=2: must be at least 3, so that every scene of "
        "env.options.demo_scenes=ABC has one"
    )
    scenes = "env.options.demo_scenes=ABC"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        configure(scenes, "env.options.demo_chains=2", name="calvin")
    enough = configure(scenes, "env.options.demo_chains=3", name="calvin")
    assert enough.env.options["demo_chains"] == 3


@pytest.mark.parametrize("tasks", ["[]", "[drawer-open,fly]"])
def test_only_tasks_of_the_run_are_tuned(configure, tasks):
    with pytest.raises(ConfigError, match=r"ppo\.tasks=\[.*\]: (expected tasks|must have at)"):
        configure("env.tasks=[drawer-open]", f"ppo.tasks={tasks}", "output=x")


def test_a_typo_is_refused(configure):
    with pytest.raises(ConfigCompositionException, match=r"ppo\.iteratons"):
        configure("ppo.iteratons=3")


def test_a_wrong_type_is_refused(configure):
    with pytest.raises(ConfigCompositionException, match=r"ppo\.epochs=many"):
        configure("ppo.epochs=many")


def test_all_bad_settings_are_listed_at_once(configure):
    expected = (
        "the configuration can't be run:\n"
        "  - value.frames=1: must be at least 2\n"
        "  - ppo.epochs=0: must be at least 1\n"
        "  - env.tasks: metaworld has no task 'reach-wal'; did you mean 'reach-wall'?\n"
        "  - critic=zero: unknown critic 'zero': choose from learned, temporal, none, group, give "
        "your own as 'module:Name', or offer it as an entry point in the group "
        "'rftf_torchrl.critics'."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}"):
        configure(
            "env.tasks=[reach-wal]", "critic=zero", "ppo.epochs=0",
            "value.frames=1",
        )  # fmt: skip


def test_large_policies_are_served_unless_told_otherwise(configure):
    large = ("smolvlm", "paligemma", "qwen_vl", "lerobot", "gr_mg", "seer")
    assert {configure(f"policy={word}").collector.policy for word in large} == {"server"}
    assert configure("policy=smolvlm", "collector=workers").collector.policy == "copy"
    assert configure("policy=smolvlm", "collector.workers=3").collector.workers == 3
    assert configure("policy=tokens").collector.policy == "copy"


def test_adapters_let_weights_be_bfloat16(configure):
    config = configure("policy=smolvlm", "policy.options.dtype=bfloat16", "policy.lora_rank=8")
    assert config.policy.lora_targets == "all-linear"


def test_a_value_critic_needs_the_value_model(configure):
    with pytest.raises(ConfigError, match="critic=temporal uses the value model"):
        configure("critic=temporal", "reward=sparse")
    message = "critic=temporal judges by the value model itself"
    for other in ((), ("reward=keep",), ("reward=rftf", "reward.outcome_weight=2")):
        with pytest.raises(ConfigError, match=message):
            configure("critic=temporal", *other)
    config = configure("critic=temporal", "reward=rftf")
    assert (config.critic, config.plain_ppo.critic) == ("temporal", "learned")


def test_what_calvin_does_not_have_is_refused_at_once(configure):
    expected = "env.options.wrist_size=84: goes with the static camera's images"
    with pytest.raises(ConfigError, match=expected):
        configure("env=calvin_state", "env.options.wrist_size=84")
    with pytest.raises(ConfigError, match="benchmark_chains=2000: must be at most 1000"):
        configure("env=calvin_state", "env.options.benchmark_chains=2000")


def test_a_divergence_has_a_weight_that_can_adapt(configure):
    assert configure("ppo.kl_coeff=0").ppo.kl_coeff == 0
    with pytest.raises(
        ConfigError, match=r"ppo\.kl_coeff=1e-05: must be 0, or between 0\.0001 and 10"
    ):
        configure("ppo.kl_coeff=1e-5")


def test_data_from_outside_have_no_successes_of_the_policy(configure, tmp_path):
    with pytest.raises(ConfigError, match=r"value\.successes=true: orders the policy's own"):
        configure(f"data.path={tmp_path}", "data.kind=own", "value=ranking_rollouts")


def test_a_run_within_its_data_is_refused(configure, tmp_path):
    (tmp_path / "videos").mkdir()
    settings = ["data.kind=videos", f"data.path={tmp_path}/videos", f"data.cache={tmp_path}/cache"]
    configure(*settings, f"output={tmp_path}/run")
    with pytest.raises(ConfigError, match=r"^.*\n  - output=\S+ lies in data\.path=\S+, so that "):
        configure(*settings, f"output={tmp_path}/videos/run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["critic=group", "ppo.group_size=4"],
            "critic=group compares outcomes alone: choose reward=sparse",
        ),
        (
            ["critic=group", "reward=sparse"],
            "ppo.group_size=1: critic=group needs at least 2, every other critic 1, and it must "
            "divide ppo.episodes_per_task=8",
        ),
        (
            ["critic=group", "reward=sparse", "ppo.group_size=3"],
            "ppo.group_size=3: critic=group needs at least 2, every other critic 1, and it must "
            "divide ppo.episodes_per_task=8",
        ),
        (
            ["policy=smolvlm", "policy.options.dtype=bfloat16"],
            "policy.options.dtype=bfloat16 with policy.options.trained=language: small steps of "
            "the optimizer are lost in bfloat16 weights; keep float32, which precision=auto "
            "computes in bfloat16, train the head alone, or set policy.lora_rank, whose adapters "
            "are float32",
        ),
        (
            [
                "policy=smolvlm",
                "policy.lora_rank=0",
                "policy.options.trained=head",
                "ppo.micro_batch=32",
            ],
            "policy.lora_rank=0: must be at least 1\n"
            "  - ppo.micro_batch=32: must be at most ppo.minibatch=16\n"
            "  - policy.lora_rank=0 with policy.options.trained=head: adapters go into layers that "
            "train; choose policy.options.trained=language or all",
        ),
        (
            ["policy=smolvlm", "policy.compile=true", "ppo.shard=true"],
            "ppo.shard=true: a divided policy is not compiled: set policy.compile=false",
        ),
        (
            ["policy=smolvlm", "policy.lora_rank=2", "policy.lora_targets=[q_proj,lm_head]"],
            "policy.lora_targets: adapters of lm_head would have no effect, because the action "
            "head reads its weight and does not call it; leave it out",
        ),
        (
            ["policy=smolvlm", "policy.lora_rank=2", "policy.lora_targets=q_proj"],
            "policy.lora_targets='q_proj': expected all-linear or a list of layers' names",
        ),
        (
            ["policy=smolvlm", "policy.lora_alpha=2"],
            "policy.lora_alpha has no effect without policy.lora_rank",
        ),
        (
            ["policy.lora_rank=2", "policy.compile=true"],
            "policy.compile=true has no effect on policy.kind=small\n"
            "  - policy.lora_targets=all-linear with policy.kind=small: name the layers, such as "
            "[to_q,to_kv]",
        ),
        (
            ["policy=lerobot", "policy.pretrained=null"],
            "policy.pretrained: a policy of LeRobot needs its folder or hub id",
        ),
        (
            ["env=calvin", "policy=gr_mg"],
            "policy.options: chunk_size must be from 1 to config.act_len = 5, the actions that the "
            "network predicts, got 8.",
        ),
        (
            ["policy=seer", "env.image_size=null", "policy.pretrained=folder"],
            "env.image_size=null: policy.kind=seer needs images\n"
            "  - policy.pretrained: the weights of policy.kind=seer were trained on CLIP's tokens, "
            "give policy.options.tokenizer=<folder with CLIP's vocab.json and merges.txt>",
        ),
        (
            [
                "policy=seer",
                "policy.options.config={arm_dim: 4, hiden: 9}",
                "policy.options.film=1",
            ],
            "policy.options.config.hiden: there is no such setting, did you mean 'hidden'?\n"
            "  - policy.options.film: there is no such setting, did you mean 'files'?\n"
            "  - policy.options.config: arm_dim must be 3 (the arm's position) or 6 (and its Euler "
            "angles), got 4.",
        ),
        (
            ["policy.options.head=flow", "policy.options.flow_level=0"],
            "policy.options.flow_level=0: must be above 0",
        ),
        (
            ["+env.options.wrist_size=84"],
            "env.options.wrist_size: there is no such setting, choose from action_repeat",
        ),
        (
            ["policy=paligemma", "policy.pretrained=null", "env.image_size=null"],
            "policy.pretrained: a policy on a vision-language model needs its folder or hub id\n"
            "  - env.image_size=null: a vision-language model needs images",
        ),
        (
            ["policy.pretrained=somewhere", "policy.options.width=3"],
            "policy.options.width: there is no such setting, choose from init_scale, learn_scale, "
            "flow_steps, flow_level, head, bins, channels, features, state_features, film, "
            "attend_objects\n"
            "  - policy.pretrained has no effect on policy.kind=small",
        ),
        (
            ["policy=qwen_vl", "policy.options.temperature=0", "policy.options.trained=none"],
            "policy.options.temperature=0: must be above 0\n"
            "  - policy.options.trained=none: must be 'all', 'language' or 'head'",
        ),
        (
            ["policy=lerobot", "policy.options.stats={}", "policy.options.init_scale=-1"],
            "policy.options.init_scale=-1: must be above 0.05\n"
            "  - policy.options.stats has no effect with policy.pretrained, which has its own",
        ),
        (
            ["policy.kind=frozen_policy:FrozenSpec", "policy.options.width=8"],
            "policy.options.width: there is no such setting, choose from chunk_size, action_dim, "
            "state_dim",
        ),
        (
            ["reward.value_range=[0]"],
            "reward.value_range=[0.0]: must have at least 2",
        ),
        (
            ["reward.value_range=[1,0]"],
            "reward.value_range=[1.0, 0.0]: must be [low, high] with low < high",
        ),
        (
            ["reward=rftf", "+reward.options={terminal: half, gamma: 1.0}"],
            "reward.options.gamma: the reward's discount is ppo.gamma\n"
            "  - reward.form=difference: the form 'difference' fails on one step of zeros: "
            "terminal is 'half'; expected 'zero' or 'keep'.",
        ),
        (
            ["reward=rftf", "+reward.options.terminl=keep"],
            "reward.form=difference: reward.options.terminl: the form 'difference' has no such "
            "option, it has gamma, terminal",
        ),
        (
            ["value.kind=pretrained", "+value.options.tower=x"],
            "value.options.tower: there is no such setting, did you mean "
            "'image_tower'?\n"
            "  - value.options.image_tower is not set",
        ),
        (
            ["reward.form=half"],
            "reward.form=half: unknown form of the reward 'half': choose from difference, "
            "peak, give your own as 'module:Name', or offer it as an entry point in the group "
            "'rftf_torchrl.reward_forms'.",
        ),
        (
            ["reward=peak", "ppo.bootstrap_timeouts=true", "reward.dense_weight=1"],
            "reward.form=peak lets a failure keep what it reached, and with "
            "ppo.bootstrap_timeouts=true the critic would go on from there: set "
            "ppo.bootstrap_timeouts=false\n"
            "  - reward.dense_weight=1: a failure earns up to that under reward.form=peak, so it "
            "must be below reward.outcome_weight=1",
        ),
        (
            ["reward=sparse", "value.refresh_steps=40"],
            "value.refresh_steps=40: no value model pays this run: set value.refresh_steps=0, or "
            "reward.dense_weight above 0 and reward.potential=value",
        ),
        (
            ["reward=sparse", "reward.fade=true"],
            "reward.fade=true: there is no dense reward to fade: set reward.fade=false, or "
            "reward.dense_weight above 0",
        ),
        (["ppo.env_steps=0"], "ppo.env_steps=0: must be at least 1"),
        (
            ["collector.engine=ray", "collector=single"],
            "collector.engine=ray: needs simulators, collector.workers=1 or more",
        ),
        (
            ["collector.gpus_per_simulator=0.5"],
            "collector.gpus_per_simulator=0.5: is for collector.engine=ray; processes share all "
            "GPUs",
        ),
        (
            ["cloning.tasks=[push]"],
            "cloning.tasks=['push']: expected tasks of env.tasks; cloning.tasks=null clones all",
        ),
        (["cloning.per_task=0"], "cloning.per_task=0: must be at least 1"),
        (
            ["value.kind=score", "value.options={model: 'nowhere:Own', inputs: {x: state}}"],
            "value.options.model=nowhere:Own: no scoring model at nowhere:Own (No module named "
            "'nowhere'): make it importable, for example by its folder in PYTHONPATH.",
        ),
        (
            ["env=calvin_state", "reward=environment"],
            "reward.potential=environment: calvin has no dense reward of its own",
        ),
        (
            ["env=metaworld_state", "augment=0.5"],
            "augment=0.5: metaworld has no symmetry to augment by",
        ),
        (
            ["env=calvin", "policy=calvin", "augment=0.5"],
            "augment=0.5: changes the state, not images: set env.image_size=null",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_contradict_each_other_are_refused(configure, overrides, message):
    expected = f"the configuration can't be run:\n  - {message}"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        configure(*overrides)
