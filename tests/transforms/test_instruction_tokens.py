"""HashTokenizer and InstructionTokens on environments and data."""

from __future__ import annotations

import re
import zlib
from collections import UserDict
from functools import partial

import pytest
import torch
from _envs import ChunkWalkEnv, walk_policy
from tensordict import NonTensorData, NonTensorStack, TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv, ToyVLAEnv, TransformedEnv, check_env_specs

from rftf_torchrl import HashTokenizer, InstructionTokens


class WithTextKeys(InstructionTokens):
    """Writes beside the tokens that ChunkWalkEnv has already."""

    def __init__(self):
        super().__init__(HashTokenizer(max_length=5), tokens_key="tokens", mask_key="mask")


def text_env(batch_size=()) -> EnvBase:
    return TransformedEnv(ChunkWalkEnv(batch_size, strings=True), WithTextKeys())


def encoded(text: str, length: int = 5) -> list[int]:
    ids = [1 + zlib.crc32(word.encode()) % 1023 for word in text.split()]
    return ids + [0] * (length - len(ids))


class FakePretrainedTokenizer:
    """Answers as transformers' tokenizers do: a BatchEncoding of lists, of varying length."""

    pad_token_id = 99

    def __init__(self):
        self.calls = []

    def __call__(self, texts):
        self.calls.append(list(texts))
        ids = [[101, *map(len, text.split()), 102] for text in texts]
        return UserDict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})


class LeftPadding(FakePretrainedTokenizer):
    def __call__(self, texts):
        return UserDict({"input_ids": [[99, 7, 8]], "attention_mask": [[0, 1, 1]]})


def test_hash_tokenizer_by_hand():
    tokens, mask = HashTokenizer(max_length=5)(["open the drawer", "push"])
    assert tokens.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert tokens.tolist() == [encoded("open the drawer"), encoded("push")]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] + [False] * 4]


def test_hash_tokenizer_ignores_case_and_punctuation():
    tokenizer = HashTokenizer()
    assert torch.equal(tokenizer("  Open, the\tDRAWER! ")[0], tokenizer("open the drawer")[0])
    assert not torch.equal(tokenizer("the drawer open")[0], tokenizer("open the drawer")[0])


def test_hash_tokenizer_ids_stay_in_range():
    words = [f"word{i}" for i in range(500)]
    for vocab_size in (2, 3, 64):
        tokens, mask = HashTokenizer(vocab_size, max_length=1)(words)
        assert mask.all()
        assert tokens.min() == 1
        assert tokens.max() == vocab_size - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: HashTokenizer(vocab_size=1),
            "vocab_size must be at least 2 (padding and one word), got 1.",
        ),
        (lambda: HashTokenizer(max_length=0), "max_length must be at least 1 word, got 0."),
        (
            lambda: HashTokenizer()(["push", " ..."]),
            "The instruction ' ...' has no word. Give every task an instruction.",
        ),
        (
            lambda: HashTokenizer(max_length=2)("open the drawer"),
            "The instruction 'open the drawer' has 3 tokens, but max_length is 2. Raise "
            "max_length, or shorten the instruction.",
        ),
        (
            lambda: InstructionTokens(FakePretrainedTokenizer()),
            "FakePretrainedTokenizer has no max_length. Give max_length, the number of tokens "
            "that every instruction is padded to.",
        ),
        (
            lambda: InstructionTokens(FakePretrainedTokenizer(), max_length=3)(
                TensorDict({"language_instruction": "open it"}, [])
            ),
            "The instruction 'open it' has 4 tokens, but max_length is 3. Raise max_length, or "
            "shorten the instruction.",
        ),
    ],
)
def test_value_errors(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("entry", "batch_size", "texts"),
    [
        ("open it", [], ["open it"]),
        (NonTensorData("open it", batch_size=[3]), [3], ["open it"] * 3),
        (NonTensorStack("open it", "push"), [2], ["open it", "push"]),
        (["open it", "push"], [2], ["open it", "push"]),
        (
            NonTensorStack(NonTensorStack("a", "b"), NonTensorStack("c", "d")),
            [2, 2],
            ["a", "b", "c", "d"],
        ),
    ],
)
def test_every_way_to_hold_a_string(entry, batch_size, texts):
    data = TensorDict({"language_instruction": entry}, batch_size)
    out = InstructionTokens(HashTokenizer(max_length=5))(data)
    tokens = torch.tensor([encoded(text) for text in texts]).reshape(*batch_size, 5)
    assert torch.equal(out["instruction", "tokens"], tokens)
    assert torch.equal(out["instruction", "mask"], tokens != 0)


def test_data_with_and_without_the_string_under_next():
    data = TensorDict({"language_instruction": ["push", "open"], "next": {}}, [2])
    InstructionTokens()(data)
    assert ("next", "instruction", "tokens") not in data.keys(True)
    data["next", "language_instruction"] = ["open", "push"]
    InstructionTokens()(data)
    assert torch.equal(data["next", "instruction", "tokens"], data["instruction", "tokens"].flip(0))


@pytest.mark.parametrize("invert", [False, True])
def test_replay_buffer(invert):
    data = TensorDict({"language_instruction": ["push", "open"], "x": torch.arange(2)}, [2])
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(2), batch_size=8)
    transform = InstructionTokens(HashTokenizer(max_length=5))
    if invert:
        data["next", "x"] = data["x"]
    buffer.append_transform(transform, invert=invert)
    buffer.extend(data)
    sample = buffer.sample()
    expected = torch.tensor([encoded("push"), encoded("open")])[sample["x"]]
    assert torch.equal(sample["instruction", "tokens"], expected)


@pytest.mark.parametrize("batch_size", [(), (3,)])
def test_environment(batch_size):
    env = text_env(batch_size)
    check_env_specs(env)
    data = env.rollout(5, walk_policy(), break_when_any_done=False)
    expected = torch.tensor(encoded("walk right")).expand(*batch_size, 5, 5)
    assert torch.equal(data["tokens"], expected)
    assert torch.equal(data["next", "tokens"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("env", [SerialEnv, partial(ParallelEnv, mp_start_method="fork")])
def test_batched_environments(env):
    env = env(2, text_env)
    try:
        check_env_specs(env)
        data = env.rollout(3, walk_policy(), break_when_any_done=False)
        assert torch.equal(data["tokens"], torch.tensor(encoded("walk right")).expand(2, 3, 5))
    finally:
        env.close(raise_if_closed=False)


def test_around_a_serial_environment():
    env = TransformedEnv(SerialEnv(2, ToyVLAEnv), InstructionTokens())
    check_env_specs(env)
    assert env.reset()["instruction", "mask"].sum(-1).tolist() == [7, 7]


def test_a_transformers_tokenizer_is_padded_and_called_once_per_string():
    tokenizer = FakePretrainedTokenizer()
    transform = InstructionTokens(tokenizer, max_length=6)
    data = TensorDict({"language_instruction": ["open it", "push", "open it"]}, [3])
    for _ in range(2):
        transform(data)
    assert data["instruction", "tokens"].tolist() == [
        [101, 4, 2, 102, 99, 99],
        [101, 4, 102, 99, 99, 99],
        [101, 4, 2, 102, 99, 99],
    ]
    assert data["instruction", "mask"].sum(-1).tolist() == [4, 3, 4]
    assert tokenizer.calls == [["open it"], ["push"]]


def test_left_padding_is_moved_to_the_right():
    data = TensorDict({"language_instruction": "push"}, [])
    InstructionTokens(LeftPadding(), max_length=4)(data)
    assert data["instruction", "tokens"].tolist() == [7, 8, 99, 99]
    assert data["instruction", "mask"].tolist() == [True, True, False, False]


def test_writing_to_the_tokens_does_not_reach_the_next_call():
    transform = InstructionTokens(HashTokenizer(max_length=5))
    for _ in range(2):
        data = transform(TensorDict({"language_instruction": "push"}, []))
        assert data["instruction", "tokens"].tolist() == encoded("push")
        data["instruction", "tokens"].zero_()


def test_missing_and_wrong_entries():
    message = (
        "'language_instruction' is missing, so there is no instruction to tokenize. The "
        "environment must write it at every reset and step; in_key= names another entry."
    )
    with pytest.raises(KeyError) as caught:
        InstructionTokens()(TensorDict({}, [2]))
    assert caught.value.args[0] == message
    with pytest.raises(TypeError, match=r"'language_instruction' must hold strings, got int\."):
        InstructionTokens()(
            TensorDict({"language_instruction": torch.ones(2)[:, None].long()}, [2])
        )
