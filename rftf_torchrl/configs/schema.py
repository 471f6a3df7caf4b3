"""What a run can be told, as dataclasses: type, range, default and meaning of every setting.

Hydra composes the YAML files in ``recipes/conf`` against these classes, so that a typo or a wrong
type stops a run before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import MISSING
from pydantic import AfterValidator, Field

from rftf_torchrl.data.readers.settings import DataConfig
from rftf_torchrl.envs.simulator import CollectorConfig, EnvConfig
from rftf_torchrl.evaluation.annotation import AnnotateConfig
from rftf_torchrl.evaluation.value_watch import WatchConfig
from rftf_torchrl.policies.native import CheckConfig
from rftf_torchrl.policies.settings import PolicyConfig
from rftf_torchrl.settings import (
    Count,
    Finite,
    Fraction,
    Names,
    NotNegative,
    NotNegativeInt,
    Positive,
    Seed,
    Text,
    one_of,
)
from rftf_torchrl.training.device import resolve_device
from rftf_torchrl.training.logger import logger_words
from rftf_torchrl.training.run_folder import RunFolder, TunedFolder
from rftf_torchrl.training.throughput import BenchConfig


def _taken_by(function: Callable[[str], object]) -> AfterValidator:
    """Checks a word by the function that will get it."""

    def check(word: str) -> str:
        try:
            function(word)
        except (RuntimeError, ImportError) as error:
            raise ValueError(str(error)) from error
        return word

    return AfterValidator(check)


def _path(path: str | None) -> Path | None:
    return None if path is None else Path(path)


@dataclass
class DemosConfig:
    """Demonstrations of the scripted experts.

    Attributes:
        per_task: successful episodes per task to train on.
        held_out_per_task: further episodes per task, to judge the value model.
        noise: standard deviation of the noise added to the actions that the expert executes; the
            recorded actions are without it.
        takeover: file of a policy that acts first, for up to half of ``env.horizon``, in half of
            the episodes to train on; the expert takes over, and its part is recorded. Null for
            none.
        path: where they are or go; null for ``demos`` in the output folder.
        validate: check every frame and every digest whenever they are opened; false for data so
            large that this takes too long, and then only the index is checked.
    """

    per_task: Count = 5
    held_out_per_task: NotNegativeInt = 3
    noise: NotNegative = 0.0
    takeover: str | None = None
    path: str | None = None
    validate: bool = True


@dataclass
class CloningConfig:
    """Behaviour cloning.

    Attributes:
        steps: optimizer steps.
        batch_size: windows per step.
        learning_rate: of Adam, with a cosine decay to zero.
        random_shift: pixels by which images are shifted at random.
        tasks: names of the tasks whose demonstrations are cloned; null for all of ``env.tasks``.
            The others are known to the value model alone, from frames without actions.
        per_task: the first so many demonstrations of each task are cloned; null for all. The value
            model, which reads no actions, learns from all of them as from videos.
        gripper_threshold: of policies of an arm and a gripper, the least number that is an open
            gripper; null where demonstrations have 1 (open) and -1 (closed), and no others.
    """

    steps: Count = 600
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    random_shift: NotNegativeInt = 3
    tasks: Names | None = None
    per_task: Count | None = None
    gripper_threshold: Fraction | None = None


@dataclass
class ValueConfig:
    """The value model.

    Attributes:
        kind: ``"small"``, ``"pretrained"``, ``"score"``, or a class of your own as
            ``"module:Class"``, see :class:`ValueSpecProtocol`.
        options: of the kind: of ``"small"`` ``channels``, see :class:`SmallValue`; of
            ``"pretrained"`` ``image_tower`` and more, see :class:`PretrainedValue`; of ``"score"``
            ``model`` and ``inputs``, see :class:`ScoreValue`.
        steps: optimizer steps.
        clips: clips per step.
        frames: frames per clip.
        learning_rate: of Adam, with a cosine decay to zero.
        random_shift: pixels by which images are shifted at random.
        wrong_instruction: weight of the wrong-instruction term.
        pair_distance: how much the value should rise within an episode before calibration, evenly;
            0 for as far as possible, as in the paper.
        failures: weight of the failure term; above 0 rolls out the cloned policy for negatives, or
            takes the failures that data from outside say.
        successes: order the frames of the rollouts that succeeded too, as of demonstrations.
        rollout_episodes: rollouts per task for the two, counted in the run's environment steps.
        calibration: ``"instruction"`` or ``"global"``: where each instruction's, or all,
            demonstrations run from 0 to 1.
        shuffle_time: negative control: frames in random order, and values of mean 0 and standard
            deviation 1, as there is no order to calibrate by.
        path: a value model's file to load, of any kind; null for the one this run has trained.
    """

    kind: Text = "small"
    options: dict[str, Any] = field(default_factory=dict)
    steps: Count = 400
    clips: Count = 16
    frames: Annotated[int, Field(ge=2, strict=True)] = 8
    learning_rate: Positive = 1e-3
    random_shift: NotNegativeInt = 3
    wrong_instruction: NotNegative = 0.0
    pair_distance: NotNegative = 0.0
    failures: NotNegative = 0.0
    successes: bool = False
    rollout_episodes: Count = 10
    calibration: Annotated[str, one_of("instruction", "global")] = "instruction"
    shuffle_time: bool = False
    path: str | None = None


@dataclass
class RewardConfig:
    """The reward of fine-tuning.

    Attributes:
        form: what the values pay, see :mod:`rftf_torchrl.rewards.forms`: ``"difference"``, or a
            function of your own as ``"module:function"``.
        options: of the form, besides ``gamma``, which is ``ppo.gamma``. ``"difference"`` has
            ``terminal``, the value at true terminations: ``"zero"`` or ``"keep"``.
        dense_weight: weight of the form; 0 is plain PPO on success.
        place: ``"reward"``: the form's reward is added to success. ``"advantage"``: standardised,
            it is added to the advantages after GAE, so that no critic learns to expect it.
        outcome_weight: weight of success.
        potential: ``"value"``: the value model. ``"environment"``: the dense reward of the
            simulator itself, as an upper reference.
        value_range: smallest and largest value of a state, e.g. ``[0, 1]``, which a calibrated
            model's demonstrations run through; null leaves values as they are.
    """

    form: Text = "difference"
    options: dict[str, Any] = field(default_factory=dict)
    dense_weight: NotNegative = 1.0
    place: Annotated[str, one_of("reward", "advantage")] = "reward"
    outcome_weight: NotNegative = 1.0
    value_range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    potential: Annotated[str, one_of("value", "environment")] = "value"


@dataclass
class BalanceConfig:
    """Which decisions form a minibatch.

    Attributes:
        kind: ``"outcome"`` for as many from successes as from failures, or ``"none"``.
    """

    kind: Annotated[str, one_of("outcome", "none")] = "outcome"


@dataclass
class PPOConfig:
    """Fine-tuning by PPO.

    Attributes:
        tasks: names of the tasks that are fine-tuned, and rolled out for the value model; null for
            all of ``env.tasks``.
        iterations: rounds of collection and update.
        env_steps: simulator steps after which fine-tuning ends, with the iteration in which they
            are reached; null leaves it to ``iterations``.
        episodes_per_task: episodes per task and iteration.
        group_size: episodes that share an initial state, whose outcomes ``critic=group`` compares.
        epochs: passes over an iteration's decisions.
        minibatch: decisions an optimizer step.
        micro_batch: decisions that go through the networks at once in an update, whose gradients
            add up to the minibatch's; null for all of them.
        cache_gib: what frozen towers give is kept for the epochs if that of an iteration's
            decisions, with its copy in the replay buffer, takes no more memory than this, in GiB; 0
            runs the towers in every epoch.
        learning_rate: of the policy.
        critic_learning_rate: of the critic.
        critic_warmup: iterations in which only the critic learns.
        critic_warmup_epochs: passes over the decisions of such an iteration.
        gamma: discount per decision.
        lmbda: GAE's lambda.
        bootstrap_timeouts: an episode that runs out of time goes on as the critic expects; false
            ends it there, and tells a learned critic the time that is left.
        clip_epsilon: PPO's clipping.
        entropy_coeff: weight of the entropy bonus.
        critic_coeff: weight of the critic's loss.
        kl_coeff: initial weight of the divergence from the starting policy; 0 for none.
        kl_target: divergence in nats per decision at which the weight is kept; null never adapts.
        max_grad_norm: largest norm of the gradient.
        ratio_bound: how far the learner's log-probability of a decision may be from the rollout's
            before an iteration's first step; beyond it the run stops. Null for 0.01 in float32 and
            0.25 in bfloat16, see :func:`check_first_ratio`.
        checkpoint_every: iterations between checkpoints.
    """

    tasks: Names | None = None
    iterations: Count = 40
    env_steps: Count | None = None
    episodes_per_task: Count = 8
    group_size: Count = 1
    epochs: Count = 4
    minibatch: Count = 256
    micro_batch: Count | None = None
    cache_gib: NotNegative = 16.0
    learning_rate: Positive = 1e-4
    critic_learning_rate: Positive = 1e-3
    critic_warmup: NotNegativeInt = 1
    critic_warmup_epochs: Count = 8
    gamma: Fraction = 0.97
    lmbda: Fraction = 0.95
    bootstrap_timeouts: bool = True
    clip_epsilon: Positive = 0.2
    entropy_coeff: NotNegative = 0.0
    critic_coeff: Positive = 0.5
    kl_coeff: NotNegative = 0.01
    kl_target: Positive | None = 5.0
    max_grad_norm: Positive = 1.0
    ratio_bound: Positive | None = None
    checkpoint_every: Count = 10


@dataclass
class EvaluationConfig:
    """Evaluation on initial states that training never draws.

    Attributes:
        episodes_per_task: episodes per task.
        deterministic: mean actions instead of samples; of a flow policy, those from zero noise.
        swapped_per_task: episodes per task of the same-scene pairs with the partner's instruction.
        video_episodes: tasks of which a video is made; 0 for none.
        video_size: edge of the video's images in pixels; a video of less than 480 is enlarged.
    """

    episodes_per_task: Count = 40
    deterministic: bool = True
    swapped_per_task: NotNegativeInt = 10
    video_episodes: NotNegativeInt = 3
    video_size: Count = 240


@dataclass
class LoggerConfig:
    """Where the numbers go besides ``metrics.csv``.

    Attributes:
        kind: ``"csv"``, ``"tensorboard"``, ``"wandb"``, some of them joined by ``+``, or
            ``"none"``.
    """

    kind: Annotated[str, _taken_by(logger_words)] = "csv+tensorboard"


@dataclass
class RunConfig:
    """Everything a run can be told.

    Attributes:
        critic: ``"learned"``; ``"temporal"``: the value model is the value function and no critic
            is learned; ``"none"``: returns alone; ``"group"``: outcomes, normalised within
            ``ppo.group_size`` episodes (GRPO); or a class or function of your own, as
            ``"module:Name"``, see :func:`make_critic`.
        augment: share of the rows of a batch that a symmetry of the simulator's changes, in
            cloning, in the value model's training and in the critic's first iterations. CALVIN's,
            from the state, permutes the colours of the blocks.
        seed: from which every random number of the run derives.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        precision: ``"auto"`` (bf16 on a GPU that has it), ``"fp32"`` or ``"bf16"``.
        threads: PyTorch threads of the main process; null leaves PyTorch's choice.
        output: folder of everything the run writes.
        resume: continue in the output folder of a run that was stopped: fine-tuning from its
            newest checkpoint, and the quick start after its last finished stage.
        baseline: ``"sparse"`` lets the quick start fine-tune a second policy by plain PPO.
    """

    env: EnvConfig = field(default_factory=EnvConfig)
    demos: DemosConfig = field(default_factory=DemosConfig)
    data: DataConfig = field(default_factory=DataConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    collector: CollectorConfig = field(default_factory=CollectorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    annotate: AnnotateConfig = field(default_factory=AnnotateConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    critic: Text = "learned"
    augment: Fraction = 0.0
    seed: Seed = 0
    device: Annotated[str, _taken_by(resolve_device)] = "auto"
    precision: Annotated[str, one_of("auto", "fp32", "bf16")] = "auto"
    threads: Count | None = None
    output: Text = MISSING
    resume: bool = False
    baseline: Annotated[str | None, one_of(None, "sparse")] = None

    @property
    def tuned_tasks(self) -> list[str]:
        """The tasks of which fine-tuning plays episodes."""
        return self.env.tasks if self.ppo.tasks is None else self.ppo.tasks

    @property
    def image_size(self) -> int | None:
        """Edge of the images that the value model learns from, in pixels."""
        return self.env.image_size if self.data.path is None else self.data.image_size

    @property
    def folder(self) -> RunFolder:
        """Where the run's files lie."""
        return RunFolder(
            Path(self.output),
            given_demonstrations=_path(self.demos.path),
            given_policy=_path(self.policy.path),
            given_value_model=_path(self.value.path),
            given_data=_path(self.data.cache),
        )

    @property
    def tuned(self) -> TunedFolder:
        """Where the files of this fine-tuning lie: ``rftf``, or ``sparse`` for plain PPO."""
        return self.folder.tuned(self.name)

    @property
    def name(self) -> str:
        """``"rftf"``, or ``"sparse"`` for plain PPO."""
        return "rftf" if self.reward.dense_weight else "sparse"
