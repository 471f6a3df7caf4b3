"""An instruction that stays the same is encoded once, while no weight changes."""

import torch
from torch import nn

from rftf_torchrl.nets.encoders import TokenEncoder, keep_instruction


def test_equal_tokens_are_encoded_once():
    encoder = TokenEncoder(16, max_tokens=4, embedding_dim=8, out_dim=8)
    encoded = []
    encoder.head.register_forward_hook(lambda *_: encoded.append(1))
    tokens, mask = torch.tensor([[1, 2, 0]]), torch.tensor([[True, True, False]])
    fresh = encoder(tokens, mask)
    with keep_instruction(nn.Sequential(encoder)):
        for given in (tokens, tokens.clone(), torch.tensor([[2, 1, 0]]), tokens):
            encoder(given, mask)
        other_mask = encoder(tokens, mask.roll(1, 1))
        kept = encoder(tokens, mask)
        assert kept is encoder(tokens, mask)
    assert torch.equal(kept, fresh)
    assert not torch.equal(other_mask, fresh)
    assert len(encoded) == 6
    encoder(tokens, mask)
    with torch.no_grad():
        encoder.positions.add_(1)
    with keep_instruction(encoder):
        assert not torch.equal(encoder(tokens, mask), fresh)
        fresh = encoder(tokens, mask)
        tokens.add_(1)  # a simulator may write into the tensors that it gave before
        assert not torch.equal(encoder(tokens, mask), fresh)
    assert encoder._last is None
