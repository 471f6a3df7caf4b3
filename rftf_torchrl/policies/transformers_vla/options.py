"""What a run can be told of a policy on a vision-language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rftf_torchrl.policies.settings import (
    Bins,
    HeadOptions,
    PolicyConfig,
    Sizes,
    options_without_effect,
)
from rftf_torchrl.policies.transformers_vla.backbone import Dtype, Trained
from rftf_torchrl.settings import Count, Positive, setting_problems


@dataclass(frozen=True, kw_only=True)
class ModelOptions(HeadOptions):
    """What a run chooses and the policy's spec keeps, besides :class:`HeadOptions`.

    Attributes:
        head: ``"tokens"``: logits of action tokens; ``"gaussian"``: a normal of learned mean;
            ``"flow"``: flow matching from one query per action, see :func:`flow_actor`.
        decoding: of the action tokens. ``"parallel"``: all in one forward, from learned queries,
            independent of each other; ``"autoregressive"``: one after another, each given those
            before it, as a model decodes words.
        temperature: of the action tokens.
        prompt: with ``{image}`` and ``{instruction}``; None for that of the model's family.
        prompt_tokens: tokens of the longest prompt, without those of the image.
        image_options: further arguments of the image processor's call, e.g. ``size``.
        trained: ``"all"``; ``"language"`` without the vision tower; ``"head"``: queries, state and
            head alone, and of the token head nothing but the queries.
        dtype: of the model's weights, ``"float32"`` or, where these are not trained or a run sets
            ``policy.lora_rank``, ``"bfloat16"``; what is added to the model is float32, and so are
            logits, means and log-probabilities.
    """

    head: Literal["tokens", "gaussian", "flow"] = "tokens"
    decoding: Literal["parallel", "autoregressive"] = "parallel"
    temperature: Positive = 1.0
    prompt: str | None = None
    prompt_tokens: Count = 64
    image_options: Mapping[str, Any] = field(default_factory=dict)
    trained: Trained = "all"
    dtype: Dtype = "float32"


@dataclass(frozen=True, kw_only=True)
class TransformersOptions(ModelOptions):
    """``policy.options`` of ``policy.kind=transformers``, besides those of :class:`ModelOptions`.

    Attributes:
        bins: bins per action dimension of the token head.
        use_state: whether the policy reads the robot's state.
    """

    bins: Bins = 256
    use_state: bool = True


def transformers_problems(settings: PolicyConfig, sizes: Sizes) -> list[str]:
    """What is wrong with a run's settings for a policy on a vision-language model."""
    problems = setting_problems(TransformersOptions, settings.options, "policy.options.")
    rank, targets = settings.lora_rank, settings.lora_targets
    trained = settings.options.get("trained", "all")
    if not settings.pretrained:
        problems.append(
            "policy.pretrained: a policy on a vision-language model needs its folder or hub id"
        )
    if sizes.image_size is None:
        problems.append("env.image_size=null: a vision-language model needs images")
    if settings.options.get("dtype") == "bfloat16" and trained != "head" and rank is None:
        problems.append(
            f"policy.options.dtype=bfloat16 with policy.options.trained={trained}: small steps of "
            "the optimizer are lost in bfloat16 weights; keep float32, which precision=auto "
            "computes in bfloat16, train the head alone, or set policy.lora_rank, whose adapters "
            "are float32"
        )
    problems += options_without_effect(TransformersOptions, settings.options)
    if trained == "head" and settings.options.get("decoding") == "autoregressive":
        problems.append(
            "policy.options.trained=head with policy.options.decoding=autoregressive: words are "
            "decoded by the model itself, so next to nothing would train; choose "
            "policy.options.trained=language or all"
        )
    if rank is not None and trained == "head":
        problems.append(
            f"policy.lora_rank={rank} with policy.options.trained=head: adapters go into layers "
            "that train; choose policy.options.trained=language or all"
        )
    if (
        rank is not None
        and not isinstance(targets, str)
        and "lm_head" in {str(target).split(".")[-1] for target in targets or ()}
    ):
        problems.append(
            "policy.lora_targets: adapters of lm_head would have no effect, because the action "
            "head reads its weight and does not call it; leave it out"
        )
    return problems
