"""What a run can be told, as dataclasses: type, range, default and meaning of every setting.

Hydra composes the YAML files in ``recipes/conf`` against these classes, so that a typo or a wrong
type stops a run before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING
from pydantic import AfterValidator, Field

from rftf_torchrl.envs.simulator import CollectorConfig, EnvConfig, Names
from rftf_torchrl.policies.settings import PolicyConfig
from rftf_torchrl.settings import (
    Count,
    Finite,
    Fraction,
    NotNegative,
    NotNegativeInt,
    Positive,
    Seed,
    Text,
    one_of,
)
from rftf_torchrl.training.device import resolve_device
from rftf_torchrl.training.logger import logger_words


def _device(name: str) -> str:
    try:
        resolve_device(name)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return name


def _logger(kind: str) -> str:
    try:
        logger_words(kind)
    except ImportError as error:
        raise ValueError(str(error)) from error
    return kind


CALIBRATIONS = ("instruction", "global", "standardise", "none")
Channels = Annotated[list[Count], Field(min_length=3, max_length=3)]


@dataclass
class DemosConfig:
    """Demonstrations of the scripted experts.

    Attributes:
        per_task: successful episodes a task to train on.
        held_out_per_task: further episodes a task, to judge the value model.
        noise: standard deviation of the noise added to the actions that the expert executes; the
            recorded actions are without it.
        path: where they are or go; null for ``demos`` in the output folder.
    """

    per_task: Count = 5
    held_out_per_task: NotNegativeInt = 3
    noise: NotNegative = 0.0
    path: str | None = None


@dataclass
class CloningConfig:
    """Behaviour cloning.

    Attributes:
        steps: optimizer steps.
        batch_size: windows a step.
        learning_rate: of Adam, with a cosine decay to zero.
        random_shift: pixels by which pictures are shifted at random.
        per_task: the first so many demonstrations of each task are cloned; null for all. The value
            model, which reads no actions, learns from all of them as from videos.
    """

    steps: Count = 600
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    random_shift: NotNegativeInt = 3
    per_task: Count | None = None


@dataclass
class ValueConfig:
    """The value model.

    Attributes:
        steps: optimizer steps.
        clips: clips a step.
        frames: frames a clip.
        learning_rate: of Adam, with a cosine decay to zero.
        channels: output channels of the image encoder's convolutions.
        random_shift: pixels by which pictures are shifted at random.
        wrong_instruction: weight of the wrong-instruction term.
        failures: weight of the failure term; above 0 rolls out the cloned policy for negatives.
        successes: order the frames of the rollouts that succeeded too, as of demonstrations.
        rollout_episodes: rollouts a task for the two, counted in the run's environment steps.
        calibration: ``"instruction"``, ``"global"``, ``"standardise"`` or ``"none"``.
        shuffle_time: negative control: frames in random order.
        path: a value model to load; null for the one this run has trained.
        image_tower: folder or hub id of a pretrained image tower (SigLIP, CLIP, DINOv2, ViT-MAE);
            null for the small encoder.
        tower_training: ``"frozen"``, ``"lora"`` or ``"full"``; a frozen tower runs once per frame,
            and pictures are not shifted.
        fusion: how the language meets the tower's patches: ``"cross_attention"``,
            ``"concatenation"`` or ``"film"``.
        grid: edge of the grid to which the tower's patches are averaged; null keeps all.
    """

    steps: Count = 400
    clips: Count = 16
    frames: Annotated[int, Field(ge=2, strict=True)] = 8
    learning_rate: Positive = 1e-3
    channels: Channels = field(default_factory=lambda: [16, 32, 32])
    random_shift: NotNegativeInt = 3
    wrong_instruction: NotNegative = 0.0
    failures: NotNegative = 0.0
    successes: bool = False
    rollout_episodes: Count = 10
    calibration: Annotated[str, one_of("instruction", "global", "standardise", "none")] = (
        "instruction"
    )
    shuffle_time: bool = False
    path: str | None = None
    image_tower: str | None = None
    tower_training: Annotated[str, one_of("frozen", "lora", "full")] = "frozen"
    fusion: Annotated[str, one_of("cross_attention", "concatenation", "film")] = "cross_attention"
    grid: Count | None = 4


@dataclass
class RewardConfig:
    """The reward of fine-tuning.

    Attributes:
        dense_weight: weight of the value difference; 0 is plain PPO on success.
        outcome_weight: weight of success.
        terminal: ``"zero"`` or ``"keep"``: the potential at true terminations.
        shaping_gamma: discount of the value difference; null for ``ppo.gamma``, with which
            shaping leaves the optimal policy unchanged.
        potential: ``"value"``: the value model. ``"environment"``: the dense reward of the
            simulator itself, as an upper reference.
        value_range: smallest and largest value of a state, e.g. ``[0, 1]``, which a calibrated
            model's demonstrations run through; null leaves values as they are.
    """

    dense_weight: NotNegative = 1.0
    outcome_weight: NotNegative = 1.0
    terminal: Annotated[str, one_of("zero", "keep")] = "zero"
    value_range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    shaping_gamma: Fraction | None = None
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
        env_steps: simulator steps after which fine-tuning ends; null leaves it to ``iterations``.
        episodes_per_task: episodes a task and iteration.
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
            ends it there: its last value is zero, or under ``reward.terminal=keep`` what it was
            worth.
        clip_epsilon: PPO's clipping.
        entropy_coeff: weight of the entropy bonus.
        critic_coeff: weight of the critic's loss.
        kl_coeff: initial weight of the divergence from the starting policy; 0 for none.
        kl_target: divergence in nats per decision at which the weight is kept; null never adapts.
        max_update_kl: the policy's update of an iteration ends when a minibatch is further than
            this from the policy that collected it, in nats per decision; null never ends it.
        max_grad_norm: largest norm of the gradient.
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
    max_update_kl: Positive | None = None
    max_grad_norm: Positive = 1.0
    checkpoint_every: Count = 10


@dataclass
class EvaluationConfig:
    """Evaluation on initial states that training never draws.

    Attributes:
        episodes_per_task: episodes a task.
        deterministic: mean actions instead of samples.
        swapped_per_task: episodes a task of the same-scene pairs with the partner's sentence.
        video_episodes: tasks of which a video is made; 0 for none.
        video_size: edge of the video's pictures in pixels.
    """

    episodes_per_task: Count = 40
    deterministic: bool = True
    swapped_per_task: NotNegativeInt = 10
    video_episodes: NotNegativeInt = 3
    video_size: Count = 192


@dataclass
class LoggerConfig:
    """Where the numbers go besides ``metrics.csv``.

    Attributes:
        kind: ``"csv"``, ``"tensorboard"``, ``"wandb"``, some of them joined by ``+``, or
            ``"none"``.
    """

    kind: Annotated[str, AfterValidator(_logger)] = "csv+tensorboard"


@dataclass
class RunConfig:
    """Everything a run can be told.

    Attributes:
        critic: ``"learned"``; ``"temporal"``: the value model is the value function and no critic
            is learned; ``"residual"``: value model plus a learned remainder; ``"none"``: returns
            alone; ``"group"``: outcomes, normalised within ``ppo.group_size`` episodes (GRPO).
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
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    collector: CollectorConfig = field(default_factory=CollectorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    critic: Annotated[str, one_of("learned", "temporal", "residual", "none", "group")] = "learned"
    seed: Seed = 0
    device: Annotated[str, AfterValidator(_device)] = "auto"
    precision: Annotated[str, one_of("auto", "fp32", "bf16")] = "auto"
    threads: Count | None = None
    output: Text = MISSING
    resume: bool = False
    baseline: Annotated[str | None, one_of(None, "sparse")] = None

    @property
    def tuned_tasks(self) -> list[str]:
        """The tasks of which fine-tuning plays episodes."""
        return self.env.tasks if self.ppo.tasks is None else self.ppo.tasks
