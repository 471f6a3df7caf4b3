"""Clone the demonstrations into a vision-language-action policy.

    python recipes/train_bc.py output=outputs/run

Reads ``<output>/demos``, writes ``<output>/bc/policy.safetensors`` and the curve of the loss.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from tensordict import NonTensorStack
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import BCLoss
from torchrl.objectives.common import LossModule

from rftf_torchrl import (
    ArmGripperCloningLoss,
    Demonstrations,
    FlowActor,
    FlowMatchingLoss,
    RunConfig,
    TokenCloningLoss,
    action_windows,
    add_adapters,
    autocast,
    clip_and_check_gradients,
    derive_seed,
    keys,
    make_logger,
    make_simulator,
    merge_lora,
    new_policy,
    prepare_output,
    progress_bar,
    random_shift,
    recipe,
    resolve_device,
    save_policy,
    seed_everything,
    stop_on_non_finite_loss,
)
from rftf_torchrl.configs.artefacts import need, whole_demos
from rftf_torchrl.configs.record import cloned_by
from rftf_torchrl.configs.run import stage
from rftf_torchrl.configs.validation import ConfigError
from rftf_torchrl.policies.heads.arm_gripper import ARM_LOC, opened_gripper


def cloning_loss(
    policy: TensorDictModuleBase, gripper_threshold: float | None = None
) -> LossModule:
    """Distance to the mean of an arm or a whole action, flow matching, or the likelihood.

    Raises:
        ValueError: for parameters in which TorchRL would not see a distribution.
    """
    if isinstance(policy, FlowActor):
        return FlowMatchingLoss(policy)
    if {ARM_LOC, keys.LOGITS} <= set(policy.out_keys):
        return ArmGripperCloningLoss(policy, gripper_threshold=gripper_threshold)
    gaussian = keys.LOC in policy.out_keys
    if not gaussian and not {"scale", "logits", "probs"} & set(policy.out_keys):
        raise ValueError(
            f"the policy writes {list(policy.out_keys)}, and none of them is 'loc', 'scale', "
            "'logits' or 'probs': BCLoss would clone the chunk it draws instead of its "
            "distribution. Rename a parameter of the distribution."
        )
    with warnings.catch_warnings():  # about an annotation that TorchRL's own class lacks
        warnings.filterwarnings("ignore", "The name target_actor_network_params")
        loss_module = BCLoss(policy, loss_function="l1") if gaussian else TokenCloningLoss(policy)
    loss_module.set_keys(action=keys.CHUNK)
    if gaussian:
        loss_module.set_keys(pad_mask=keys.CHUNK_IS_PAD)
    return loss_module


def cloned_demos(config: RunConfig) -> Demonstrations:
    """The demonstrations to clone.

    Raises:
        ValueError: if a task has fewer than ``cloning.per_task``.
    """
    train = whole_demos(config).select(split="train")
    count, wanted = config.cloning.per_task, config.cloning.tasks
    if count is None and wanted is None:
        return train
    by_task: dict[int, list[int]] = {
        task.id: [] for task in train.tasks if wanted is None or task.name in wanted
    }
    for episode in train.episodes:
        if episode.task_id in by_task:
            by_task[episode.task_id].append(episode.index)
    few = [t.name for t in train.tasks if 0 < len(by_task.get(t.id, ())) < (count or 0)]
    if few:
        raise ValueError(
            f"{train.root} holds fewer than cloning.per_task={count} demonstrations of "
            f"{', '.join(few)}: record more (demos.per_task), or lower it"
        )
    return train.select(episodes=[i for found in by_task.values() for i in found[:count]])


@stage(
    "train_bc",
    "behaviour cloning",
    about=lambda config: (
        f"{config.cloning.steps:,} steps of {config.cloning.batch_size} windows of "
        f"{config.folder.demonstrations}, policy {config.policy.kind}, "
        f"on {resolve_device(config.device)}"
    ),
    writes=lambda config: config.folder.cloning / "policy.safetensors",
    entitled=lambda config: need(config, demos=True),
)
def clone(config: RunConfig) -> Path:
    """Train the policy, save it and return its file."""
    seed_everything(derive_seed(config.seed, "cloning"))
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "cloning", "batches"))
    device = resolve_device(config.device)
    demonstrations = cloned_demos(config)
    windows = action_windows(demonstrations, chunk_size=config.env.chunk_size)
    state = demonstrations.frames[keys.STATE][windows.frame]
    action_dim = demonstrations.frames["action"].shape[-1]
    policy, spec = new_policy(config, state.shape[-1], action_dim)
    for module in policy.modules():
        if hasattr(module, "set_state_statistics"):
            module.set_state_statistics(state.mean(0), state.std(0))
    add_adapters(config, policy)
    policy.to(device)
    transform = spec.observation_transform()
    simulator: Any = make_simulator(config.env)
    sentences = {task.id: task.instruction for task in demonstrations.tasks}

    loss_module = cloning_loss(policy, config.cloning.gripper_threshold)
    if isinstance(loss_module, ArmGripperCloningLoss):  # all of them, before the first step
        chunk, padding = windows.targets[keys.CHUNK], windows.targets[keys.CHUNK_IS_PAD]
        opened_gripper(chunk[..., -1], ~padding, config.cloning.gripper_threshold)
    trained = [p for p in loss_module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.cloning.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.cloning.steps)

    folder = prepare_output(config.folder.cloning)
    steps = progress_bar(range(1, config.cloning.steps + 1), "behaviour cloning")
    with make_logger(config.logger.kind, folder, {"seed": config.seed}) as log:
        for step in steps:
            rows = torch.randint(len(windows), (config.cloning.batch_size,), generator=generator)
            batch = windows.batch(rows)
            if config.augment:
                batch = simulator.augment(batch, config.augment, generator)
            if config.cloning.random_shift:
                for key in (keys.IMAGE, keys.WRIST_IMAGE):
                    if (image := batch.get(key, None)) is not None:
                        batch[key] = random_shift(image, config.cloning.random_shift, generator)
            if transform is not None:
                spoken = [sentences[task] for task in batch[keys.TASK_ID].flatten().tolist()]
                if hasattr(spec, "demonstration_batch"):
                    seen = demonstrations.frames, windows.frame[rows], demonstrations.spans
                    batch = spec.demonstration_batch(batch, *seen, spoken)
                batch[keys.INSTRUCTION_TEXT] = NonTensorStack(*spoken)
                batch = transform(batch).exclude(keys.INSTRUCTION_TEXT)
            batch[keys.EXECUTED] = ~batch[keys.CHUNK_IS_PAD]
            with (
                autocast(device, config.precision),
                set_exploration_type(ExplorationType.DETERMINISTIC),
            ):
                losses = loss_module(batch.to(device))
            stop_on_non_finite_loss(losses)
            optimizer.zero_grad()
            losses["loss_bc"].backward()
            clip_and_check_gradients(loss_module.named_parameters(), config.ppo.max_grad_norm)
            optimizer.step()
            schedule.step()
            if step % 20 == 0 or step == config.cloning.steps:
                loss = float(losses["loss_bc"].detach())
                log.log({"loss_bc": loss}, step)
                steps.set_postfix(loss=f"{loss:.4f}")
    if config.policy.lora_rank is not None:
        merge_lora(policy)
    file = folder / "policy.safetensors"
    save_policy(policy, spec, file, made_by=cloned_by(config))
    return file


@recipe()
def main(config: RunConfig) -> None:
    if config.data.path is not None:
        raise ConfigError(
            f"data={config.data.path}: such data are for the value model; cloning needs actions, "
            "and reads demos.path: leave data out (DemonstrationWriter writes demonstrations)"
        )
    clone(config)


if __name__ == "__main__":
    main()
