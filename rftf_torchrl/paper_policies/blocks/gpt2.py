"""GPT-2's blocks from ``transformers`` without embeddings, under a mask of one's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rftf_torchrl.optional import optional_module, transformers_module


class GPT2Trunk(nn.Module):
    """GPT-2 between its embeddings and its head; dropout is off.

    Args:
        dim: features of a token.
        layers: number of blocks.
        heads: attention heads.
        activation: name of the activation in the MLP, ``"relu"`` or ``"gelu_new"``.
    """

    def __init__(self, dim: int, layers: int, heads: int, activation: str) -> None:
        super().__init__()
        config = transformers_module("GPT-2").GPT2Config(
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            n_embd=dim,
            n_layer=layers,
            n_head=heads,
            n_inner=4 * dim,
            activation_function=activation,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
        config._attn_implementation = "sdpa"
        part = optional_module("transformers.models.gpt2.modeling_gpt2", "transformers")
        self.h = nn.ModuleList(part.GPT2Block(config, layer_idx=i) for i in range(layers))
        self.ln_f = nn.LayerNorm(dim, eps=config.layer_norm_epsilon)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5)
            elif name.endswith(("c_attn.weight", "c_fc.weight")):
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Maps tokens to tokens of the same shape.

        Args:
            x: [N, S, dim].
            visible: bool [S, S] or [N, S, S]; whether a row's token sees a column's.
        """
        if visible.ndim == 2:
            visible = visible[None]
        mask = torch.zeros(visible.shape, dtype=x.dtype, device=x.device)
        mask = mask.masked_fill(~visible, torch.finfo(x.dtype).min)[:, None]
        for block in self.h:
            out = block(x, attention_mask=mask)
            x = out[0] if isinstance(out, tuple) else out
        x = self.ln_f(x)
        return x
