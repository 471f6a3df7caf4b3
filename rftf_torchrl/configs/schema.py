"""What a run can be told, as dataclasses: type, range, default and meaning of every setting.

Hydra composes the YAML files in ``recipes/conf`` against these classes, so that a typo or a wrong
type stops a run before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
        per_task: number of successful episodes per task to train on.
        held_out_per_task: number of further episodes per task; they judge the value model.
        noise: standard deviation of the noise added to the expert's actions. The recorded actions
            have no noise.
        takeover: file of a policy that acts first in half of the episodes to train on, for up to
            half of ``env.horizon``. Then the expert takes over, and its part is recorded; null for
            none.
        path: folder of the demonstrations; null for ``demos`` in the output folder.
        validate: check every frame and every digest when demonstrations are opened; false checks
            only the index, for data so large that the full check takes too long.
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
        steps: number of optimizer steps.
        batch_size: number of windows per step.
        learning_rate: learning rate of Adam, with a cosine decay to zero.
        random_shift: images are shifted at random by up to this many pixels; 0 for none.
        tasks: names of the tasks whose demonstrations are cloned; null for all of ``env.tasks``.
            The value model still learns from the frames of the others, without actions.
        per_task: number of demonstrations of each task that are cloned, the first ones; null for
            all. The value model reads no actions and learns from all of them, as from videos.
        gripper_threshold: for policies with a separate gripper: the smallest number that counts as
            1; null where demonstrations have only 1 and -1.
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
        kind: ``"small"``, ``"pretrained"``, ``"score"``, ``"lerobot"``, or a class of your own as
            ``"module:Class"``, see :class:`ValueSpecProtocol`.
        options: settings of this kind alone: see :class:`SmallValue`, :class:`PretrainedValue`,
            :class:`ScoreValue`.
        steps: number of optimizer steps.
        clips: number of clips per step.
        frames: number of frames per clip.
        learning_rate: learning rate of Adam, with a cosine decay to zero.
        random_shift: images are shifted at random by up to this many pixels; 0 for none.
        wrong_instruction: weight of the term that ranks a wrong instruction below the right one.
        pair_distance: how much the value should rise within an episode before calibration, evenly
            over time; 0 for as much as possible, as in the paper.
        failures: weight of the term that ranks failures below success. Above 0, the failures come
            from rollouts of the cloned policy, or from ``data`` that has failures labelled.
        successes: also order the frames of the policy's successful rollouts, as those of
            demonstrations.
        rollout_episodes: number of rollouts per task for ``failures`` and ``successes``. They count
            as environment steps of the run.
        refresh_steps: number of optimizer steps in each iteration of fine-tuning, on demonstrations
            and on the iteration's own episodes, before they are paid; 0 keeps the value model as it
            was trained. No episode is played for it.
        calibration: ``"instruction"``: the demonstrations of each instruction run from 0 to 1 on
            average; ``"global"``: all demonstrations together do.
        shuffle_time: negative control: train on frames in random order. Values then have mean 0 and
            standard deviation 1, because there is no order to calibrate by, until the model learns
            on from failures.
        path: file of a trained value model of any kind; null for the one that this run has trained.
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
    refresh_steps: NotNegativeInt = 0
    calibration: Annotated[str, one_of("instruction", "global")] = "instruction"
    shuffle_time: bool = False
    path: str | None = None


@dataclass
class RewardConfig:
    """The reward of fine-tuning.

    Attributes:
        form: how values become a reward, see :mod:`rftf_torchrl.rewards.forms`: ``"difference"``
            and others, or a function of your own as ``"module:function"``.
        options: settings of this form alone. ``"difference"`` has ``terminal``: ``"zero"`` or
            ``"keep"``, the value where an episode terminates. ``gamma`` is always ``ppo.gamma``.
        dense_weight: weight of the dense reward; 0 is plain PPO on success.
        fade: multiply this weight by the share of a task's episodes that failed in the iteration,
            and ``value.refresh_steps`` by the share over all tasks. So what success teaches well is
            left to success.
        outcome_weight: reward of a success.
        potential: ``"value"``: the value model. ``"environment"``: the simulator's own dense
            reward, as an upper reference.
        value_range: values are clipped to this range, e.g. ``[0, 1]``, the range of a calibrated
            model on its demonstrations; null does not clip.
    """

    form: Text = "difference"
    options: dict[str, Any] = field(default_factory=dict)
    dense_weight: NotNegative = 1.0
    fade: bool = False
    outcome_weight: NotNegative = 1.0
    value_range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    potential: Annotated[str, one_of("value", "environment")] = "value"


@dataclass
class BalanceConfig:
    """Which decisions form a minibatch.

    Attributes:
        kind: ``"outcome"``: a minibatch has as many decisions from successes as from failures;
            ``"none"``: every decision once per epoch, in random order.
    """

    kind: Annotated[str, one_of("outcome", "none")] = "outcome"


@dataclass
class PPOConfig:
    """Fine-tuning by PPO.

    Attributes:
        tasks: names of the tasks to fine-tune; null for all of ``env.tasks``. The value model's
            rollouts are of these tasks, too.
        iterations: number of rounds of collection and update.
        env_steps: stop after the iteration in which this number of simulator steps is reached;
            null stops after ``iterations``.
        episodes_per_task: number of episodes per task and iteration.
        group_size: number of episodes that share an initial state; ``critic=group`` compares their
            outcomes.
        epochs: number of passes over an iteration's decisions.
        minibatch: number of decisions per optimizer step.
        micro_batch: number of decisions that go through the networks at once. Gradients are summed
            to that of the minibatch; null for the whole minibatch at once.
        cache_gib: memory limit (GiB) for cached encoder outputs. If one iteration fits, including
            its replay-buffer copy, outputs of frozen encoders are computed once and reused in every
            epoch; 0 disables caching.
        learning_rate: learning rate of the policy.
        critic_learning_rate: learning rate of the critic.
        critic_warmup: number of first iterations in which only the critic learns.
        critic_warmup_epochs: number of passes over the decisions in such an iteration.
        gamma: discount per decision.
        lmbda: lambda of GAE.
        bootstrap_timeouts: true: an episode that runs out of time continues with the critic's
            value. False: it ends there, and a learned critic is told the time that is left.
        clip_epsilon: clipping range of PPO's probability ratio.
        entropy_coeff: weight of the entropy bonus.
        critic_coeff: weight of the critic's loss.
        kl_coeff: initial weight of the KL divergence from the starting policy; 0 for none.
        kl_target: target of that divergence, in nats per decision; the weight adapts towards it
            once per iteration. Null keeps the weight.
        max_grad_norm: gradients are clipped to this norm.
        overlap: play the next iteration's episodes while the present ones are learned from. They
            are always played with the weights from before that update. Needs
            ``collector.policy=copy``; with ``collector.workers=0`` they have these weights, too,
            but nothing runs at the same time.
        shard: divide the weights, gradients and optimizer state of the policy's layers over the
            processes that torchrun starts, by FSDP2.
        ratio_bound: largest allowed difference between the learner's and the rollout's
            log-probability of a decision, before an iteration's first step. Above it the run stops.
            Null for 0.01 in float32 and 0.25 in bfloat16, see :func:`check_first_ratio`.
        checkpoint_every: number of iterations between checkpoints.
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
    overlap: bool = False
    shard: bool = False
    ratio_bound: Positive | None = None
    checkpoint_every: Count = 10


@dataclass
class EvaluationConfig:
    """Evaluation on initial states that training never draws.

    Attributes:
        episodes_per_task: number of held-out episodes per task.
        deterministic: use mean actions instead of samples; a flow policy starts from zero noise.
        swapped_per_task: number of episodes per task that are played with the partner task's
            instruction, for tasks that share a scene.
        video_episodes: number of tasks of which a video is made, one episode each; 0 for none.
        video_size: width and height of a video's images in pixels. A video of less than 480 is
            enlarged.
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
        kind: ``"csv"``, ``"tensorboard"``, ``"wandb"``, several joined by ``+``, or ``"none"``.
    """

    kind: Annotated[str, _taken_by(logger_words)] = "csv+tensorboard"


@dataclass
class RunConfig:
    """All settings of a run.

    Attributes:
        critic: ``"learned"``: a critic network. ``"temporal"``: the value model is the value
            function, and no critic is learned. ``"none"``: returns alone. ``"group"``: outcomes,
            normalised within ``ppo.group_size`` episodes (GRPO). Or a class or function of your own
            as ``"module:Name"``, see :func:`make_critic`.
        augment: share of a batch's rows that are changed by a symmetry of the simulator: in
            cloning, in the value model's training and in the critic's first iterations. CALVIN's
            symmetry permutes the colours of the blocks; it needs the state.
        seed: seed of all random numbers of the run.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ...
        precision: ``"auto"`` (bf16 on a GPU that has it), ``"fp32"`` or ``"bf16"``.
        threads: number of PyTorch threads of the main process; null for PyTorch's default.
        output: folder for everything that the run writes.
        resume: continue a stopped run in the output folder: fine-tuning from its newest checkpoint,
            the quick start after its last finished stage.
        baseline: ``"sparse"``: the quick start also fine-tunes by plain PPO, for comparison.
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

    @property
    def plain_ppo(self) -> RunConfig:
        """The same run with success alone; time-outs end or go on as in this one."""
        value = replace(self.value, refresh_steps=0)
        critic = "learned" if self.critic == "temporal" else self.critic
        return replace(self, reward=RewardConfig(dense_weight=0.0), value=value, critic=critic)
