"""One instruction has one row of tokens, however it was typed."""

import unicodedata

import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict

from rftf_torchrl import HashTokenizer, InstructionTokens, hashed_embedding, keys
from rftf_torchrl.nets.sentences import normal_sentence, sentences_of, words_of
from rftf_torchrl.paper_policies.blocks.clip_text import ClipTextConfig
from rftf_torchrl.paper_policies.blocks.clip_tokens import ClipTokens

PAIRS = {
    "decomposed": (unicodedata.normalize("NFD", "öffne die schublade"), "öffne die schublade"),
    "compatible": ("ﬁnd the ｄｒａｗｅｒ", "find the drawer"),
    "double quotes": ("push the “red” block", 'push the "red" block'),
    "single quotes": ("don’t push", "don't push"),
    "full stop": ("打开抽屉。", "打开抽屉"),
    "dash": ("open — then close", "open - then close"),
    "hyphen": ("the left‑most block", "the left-most block"),
    "no-break space": ("open\u00a0the\u202fdrawer", "open the drawer"),
    "zero-width space": ("open the\u200b drawer", "open the drawer"),
    "byte-order mark": ("\ufeffopen the drawer", "open the drawer"),
    "line end": ("open the drawer\r\n", "open the drawer"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_sentences_have_equal_tokens(name):
    typed, plain = PAIRS[name]
    hashed, clip = HashTokenizer(), ClipTokens(ClipTextConfig())
    assert torch.equal(hashed(typed)[0], hashed(plain)[0])
    assert torch.equal(clip.encode(typed), clip.encode(plain))
    assert np.array_equal(hashed_embedding(typed), hashed_embedding(plain))
    assert words_of(typed) == words_of(plain)


def test_a_tokenizer_of_someone_else_gets_one_spelling():
    seen = []

    def tokenizer(texts):
        seen.extend(texts)
        return [[1, 2]], torch.ones(1, 2)

    transform = InstructionTokens(
        lambda texts: tuple(map(torch.as_tensor, tokenizer(texts))), max_length=2
    )
    typed = NonTensorStack("\ufeffpush the “red” block\r\n", 'push the "red" block')
    transform(TensorDict({keys.INSTRUCTION_TEXT: typed}, [2]))
    assert seen == ['push the "red" block']


@pytest.mark.parametrize("text", ["Open, the drawer!", "a_b (c) 3.5 \"q\" 'r' ~x ^y $z #", "don't"])
def test_plain_sentences_stay(text):
    assert normal_sentence(text) == text


@pytest.mark.parametrize("pair", PAIRS.values())
def test_a_second_time_changes_nothing(pair):
    once = normal_sentence(pair[0])
    assert normal_sentence(once) == once


def test_sentences_that_differ_stay_different():
    assert words_of("öffne") != words_of("offne")
    assert words_of("open the drawer") != words_of("open drawer the")
    assert words_of("left-most") != words_of("left most")


def test_nothing_but_punctuation_is_no_word():
    assert words_of("— … !") == []
    with pytest.raises(
        ValueError, match=r"^The instruction '。' has no word\. Give every task an "
    ):
        HashTokenizer()("。")


def test_sentences_of_an_entry_have_one_spelling():
    assert sentences_of([["a “b”"], ("c\u00a0d",)], "text") == ['a "b"', "c d"]
