"""The description of a policy on a vision-language model, enough to build it without a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from tensordict.nn import (
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import nn

from rftf_torchrl import keys
from rftf_torchrl.policies.heads.actors import gaussian_actor, token_actor
from rftf_torchrl.policies.heads.flow import flow_actor
from rftf_torchrl.policies.heads.flow_networks import ChunkVelocity
from rftf_torchrl.policies.native import NativeComparison
from rftf_torchrl.policies.settings import PolicyConfig, Sizes
from rftf_torchrl.policies.transformers_vla import native
from rftf_torchrl.policies.transformers_vla.autoregressive import (
    AutoregressiveActor,
    AutoregressiveVLA,
)
from rftf_torchrl.policies.transformers_vla.backbone import (
    build_backbone,
    freeze_backbone,
    load_backbone,
    load_config,
)
from rftf_torchrl.policies.transformers_vla.options import (
    ModelOptions,
    TransformersOptions,
    transformers_problems,
)
from rftf_torchrl.policies.transformers_vla.processor import VLAProcessor
from rftf_torchrl.policies.transformers_vla.query_network import QueryNetwork
from rftf_torchrl.policies.transformers_vla.vla import (
    ActionTokenHead,
    ChunkHead,
    QueryFeatures,
    TransformersVLA,
)
from rftf_torchrl.policies.transformers_vla.vla_inputs import VLAInputs
from rftf_torchrl.settings import make_settings


@dataclass(frozen=True)
class TransformersPolicySpec(ModelOptions):
    """Everything that decides a policy on a model of ``transformers``, with :class:`ModelOptions`.

    :meth:`from_pretrained` fills in what the model's folder tells.

    Attributes:
        backbone: the model's config.
        chunk_size: actions per chunk, H.
        action_dim: size of an action, A.
        action_tokens: ids of the action tokens, from the lowest bin to the highest.
        state_dim: features of the state that becomes one token; None reads no state.
        wrist_image: whether ``("observation", "wrist_image")`` is a second image.
        image_mean: of the image processor.
        image_std: of the image processor.
        rescale: of the image processor.
        files: tokenizer and image processor, by file name.
    """

    on_vision_language_model: ClassVar[bool] = True
    kind: ClassVar[str] = "transformers"
    pretrained_on: ClassVar[str] = "hub"
    Options: ClassVar[type] = TransformersOptions

    backbone: Mapping[str, Any]
    chunk_size: int
    action_dim: int
    action_tokens: tuple[int, ...] = ()
    state_dim: int | None = None
    wrist_image: bool = False
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale: float = 1 / 255
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.head not in ("tokens", "gaussian", "flow"):
            raise ValueError(f"head must be 'tokens', 'gaussian' or 'flow', got {self.head!r}.")
        if self.decoding not in ("parallel", "autoregressive"):
            raise ValueError(
                f"decoding must be 'parallel' or 'autoregressive', got {self.decoding!r}."
            )
        for name in ("action_tokens", "image_mean", "image_std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.head == "tokens" and not self.action_tokens:
            raise ValueError("head='tokens' needs action_tokens, see action_token_ids.")

    problems = staticmethod(transformers_problems)

    @classmethod
    def from_run(cls, settings: PolicyConfig, sizes: Sizes) -> TransformersPolicySpec:
        """The spec of a run's policy, see :meth:`from_pretrained`."""
        options = vars(make_settings(TransformersOptions, settings.options, "policy.options."))
        return cls.from_pretrained(
            str(settings.pretrained),
            chunk_size=sizes.chunk_size,
            action_dim=sizes.action_dim,
            state_dim=sizes.state_dim if options.pop("use_state") else None,
            wrist_image=sizes.wrist,
            **options,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        chunk_size: int,
        action_dim: int,
        bins: int = 256,
        **options: Any,
    ) -> TransformersPolicySpec:
        """Describe a policy on the model in a folder or on a hub; no weight is read.

        Args:
            source: local folder or id, with config, tokenizer and image processor.
            chunk_size: actions per chunk.
            action_dim: size of an action.
            bins: number of action tokens, unless ``action_tokens`` names them.
            **options: further attributes of the class.

        Returns:
            The spec.

        Raises:
            ValueError: if the processor does not belong to the model.
        """
        config = load_config(source)
        known = ("prompt", "prompt_tokens", "image_options")
        given = {name: options[name] for name in known if name in options}
        processor = VLAProcessor.from_pretrained(source, config, **given)
        if options.get("head", "tokens") == "tokens" and not options.get("action_tokens"):
            options["action_tokens"] = action_token_ids(processor.tokenizer, bins)
        images = processor.image_processor
        return cls(
            config,
            chunk_size,
            action_dim,
            image_mean=images.image_mean,
            image_std=images.image_std,
            rescale=images.rescale_factor,
            files=processor.files(),
            **options,
        )

    def build(self) -> ProbabilisticTensorDictSequential:
        """The policy with fresh weights."""
        return self._assemble(build_backbone(self.backbone, self.dtype))

    def load(self, source: str | Path) -> ProbabilisticTensorDictSequential:
        """The policy with the model's weights of a folder or a hub, and fresh queries and head.

        Args:
            source: local folder or id.

        Raises:
            ValueError: listing every weight that does not fit.
        """
        return self._assemble(load_backbone(source, self.dtype))

    def to_dict(self) -> dict[str, Any]:
        """A dict that JSON can hold, without the files."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "files"}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> TransformersPolicySpec:
        """The spec that :meth:`to_dict` described, with its ``"files"``."""
        return cls(**spec)

    def processor(self) -> VLAProcessor:
        """Tokenizer and image processor, from ``files``."""
        return VLAProcessor.from_files(
            self.files,
            self.backbone,
            prompt=self.prompt,
            prompt_tokens=self.prompt_tokens,
            image_options=self.image_options,
        )

    def observation_transform(self) -> VLAInputs:
        """Runs the processor where observations enter."""
        pictures = [keys.IMAGE, keys.WRIST_IMAGE] if self.wrist_image else [keys.IMAGE]
        return VLAInputs(self.processor(), image_keys=pictures)

    def compare_with_native(
        self, policy: nn.Module, source: str, sentences: Sequence[str], size: int | None
    ) -> NativeComparison:
        """See :func:`compare_with_native`.

        With ``decoding="autoregressive"`` and no state, the actions of ``generate``; else the
        logits after the prompt, because what follows it is this library's.
        """
        return native.compare(self, policy, source, sentences, size)

    def export(self, policy: nn.Module, folder: Path, source: str | None = None) -> None:
        """Writes what ``from_pretrained`` of ``transformers`` reads; see :func:`export_policy`.

        Queries, state and action head, of which that library has none, go to
        ``action_head.safetensors`` beside the model, with this spec as JSON in its metadata.
        """
        native.export(self, policy, folder)

    def features(self, backbone: nn.Module, queries: int) -> QueryFeatures:
        """A network that writes hidden states at `queries` query tokens, for a head of your own."""
        freeze_backbone(backbone, self.trained)
        return QueryFeatures(
            QueryNetwork(
                backbone,
                queries,
                image_mean=self.image_mean,
                image_std=self.image_std,
                rescale=self.rescale,
                state_dim=self.state_dim,
            )
        )

    def _assemble(self, backbone: nn.Module) -> ProbabilisticTensorDictSequential:
        sizes: Any = {"chunk_size": self.chunk_size, "action_dim": self.action_dim}
        if self.head == "tokens":
            head = ActionTokenHead(self.action_tokens, temperature=self.temperature, **sizes)
            edge = head.bins / (head.bins - 1)  # the outer bins' centres lie on -1 and 1
            if self.decoding == "autoregressive":
                features = self.features(backbone, 0)
                return AutoregressiveActor(AutoregressiveVLA(features, head, low=-edge, high=edge))
            features = self.features(backbone, self.chunk_size * self.action_dim)
            vla = TransformersVLA(features, head, **sizes)
            return token_actor(vla, bins=head.bins, low=-edge, high=edge, **sizes)
        features = self.features(backbone, self.chunk_size)
        hidden = features.network.hidden_size
        if self.head == "flow":
            flat = TensorDictModule(nn.Flatten(-2), [keys.FEATURES], [keys.FEATURES])
            return flow_actor(
                TensorDictSequential(features, flat),
                ChunkVelocity(self.chunk_size * hidden, (self.chunk_size, self.action_dim)),
                steps=self.flow_steps,
                level=self.flow_level,
                **sizes,
            )
        mean = ChunkHead(hidden, action_dim=self.action_dim)
        return gaussian_actor(
            TransformersVLA(features, mean, **sizes),
            init_scale=self.init_scale,
            learn_scale=self.learn_scale,
            **sizes,
        )


def action_token_ids(tokenizer: Any, bins: int) -> tuple[int, ...]:
    """The last tokens of the vocabulary, of which the very last is the lowest bin.

    Source: Kim et al. 2024, "OpenVLA", arXiv 2406.09246, section 3.2 and its code's order.

    Args:
        tokenizer: of ``transformers``; tokens that were added to its vocabulary do not count.
        bins: how many.

    Returns:
        Their ids, from the lowest bin to the highest.

    Raises:
        ValueError: if the vocabulary is too small, or one of them is a special token.
    """
    end = tokenizer.vocab_size
    if not 2 <= bins < end:
        raise ValueError(f"bins must be at least 2 and below the {end} tokens of the vocabulary.")
    chosen = tuple(range(end - 1, end - 1 - bins, -1))
    special = sorted(set(chosen) & set(tokenizer.all_special_ids))
    if special:
        raise ValueError(
            f"the last {bins} tokens of the vocabulary have the special tokens {special} among "
            "them: name the action tokens by action_tokens."
        )
    return chosen
