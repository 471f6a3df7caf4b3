import re

import pytest
import torch

from rftf_torchrl import ValueCalibration

FIRST = torch.tensor([0.0, 2.0, 10.0])
LAST = torch.tensor([3.0, 5.0, 30.0])
TOKENS = torch.tensor([[1, 2], [1, 2], [3, 0]])


def fitted(mode: str) -> ValueCalibration:
    calibration = ValueCalibration()
    calibration.fit(FIRST, LAST, TOKENS, TOKENS, mode=mode)
    return calibration


def test_it_starts_as_the_identity():
    raw = torch.randn(4, 1)
    assert torch.equal(ValueCalibration()(raw), raw)


def test_each_instruction_runs_from_zero_to_one():
    calibration = fitted("instruction")
    first = calibration(FIRST[:, None], TOKENS)[:, 0]
    last = calibration(LAST[:, None], TOKENS)[:, 0]
    torch.testing.assert_close(first, torch.tensor([-1 / 3, 1 / 3, 0.0]))
    torch.testing.assert_close(last, torch.tensor([2 / 3, 4 / 3, 1.0]))


def test_an_unknown_instruction_uses_the_global_map():
    raw, unknown = torch.tensor([[4.0]]), torch.tensor([[9, 9]])
    expected = (4.0 - FIRST.mean()) / (LAST.mean() - FIRST.mean())
    torch.testing.assert_close(fitted("instruction")(raw, unknown)[0, 0], expected)
    torch.testing.assert_close(fitted("global")(raw)[0, 0], expected)


def test_leading_batch_dimensions():
    calibration = fitted("instruction")
    raw, tokens = FIRST[:, None], TOKENS
    stacked = calibration(raw.expand(5, 3, 1), tokens.expand(5, 3, 2))
    assert torch.equal(stacked[4], calibration(raw, tokens))


def test_standardise():
    scores = torch.cat([FIRST, LAST])
    out = fitted("standardise")(scores[:, None])
    torch.testing.assert_close(out.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.std(correction=0), torch.tensor(1.0))


def test_a_new_fit_replaces_the_table():
    calibration = fitted("instruction")
    calibration.fit(FIRST, LAST, mode="global")
    assert not calibration.per_instruction


def test_state_dict_carries_the_table_to_a_fresh_module():
    fresh = ValueCalibration()
    fresh.load_state_dict(fitted("instruction").state_dict())
    raw = torch.randn(3, 1)
    assert torch.equal(fresh(raw, TOKENS), fitted("instruction")(raw, TOKENS))


def test_padding_of_another_length_is_no_other_instruction():
    calibration, raw = fitted("instruction"), torch.randn(3, 1)
    longer = torch.cat([TOKENS, torch.zeros(3, 4, dtype=torch.int64)], -1)
    assert torch.equal(calibration(raw, longer), calibration(raw, TOKENS))
    other = longer.clone()
    other[0, 5] = 8
    assert calibration.knows(other).tolist() == [False, True, True]
    assert calibration.knows(TOKENS).all()
    assert ValueCalibration().knows(other).all()


NOT_ABOVE = (
    "above the first ones on average, expected more than 0. Train the value model longer, or check "
    "that the frames are in time order and come from successes."
)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: ValueCalibration().fit(LAST, FIRST, mode="global"),
            "cannot calibrate: for all instructions together the last frames score -8.667 "
            + NOT_ABOVE,
        ),
        (
            lambda: ValueCalibration().fit(
                FIRST, torch.tensor([3.0, 5.0, 9.0]), TOKENS, TOKENS, names=["a", "a", "open it"]
            ),
            "cannot calibrate: for the instruction 'open it' the last frames score -1 " + NOT_ABOVE,
        ),
        (
            lambda: ValueCalibration().fit(FIRST, torch.tensor([3.0, 5.0, 9.0]), TOKENS, TOKENS),
            "cannot calibrate: for the instruction with tokens [3, 0] the last frames score -1 "
            + NOT_ABOVE,
        ),
        (
            lambda: ValueCalibration().fit(FIRST, LAST[:2], TOKENS, TOKENS[:2]),
            "no last frame for the instruction with tokens [3, 0]: pass both ends of each "
            "demonstration.",
        ),
        (
            lambda: ValueCalibration().fit(FIRST, LAST[:0], mode="global"),
            "cannot calibrate from 3 first and 0 last frames, expected one of each at least: give "
            "demonstrations that succeed.",
        ),
        (
            lambda: ValueCalibration().fit(FIRST, LAST),
            "mode 'instruction' needs first_tokens and last_tokens.",
        ),
        (
            lambda: ValueCalibration().fit(FIRST, LAST, mode="minmax"),
            "mode must be 'instruction', 'global' or 'standardise', got 'minmax'.",
        ),
        (
            lambda: fitted("instruction")(FIRST[:, None]),
            "calibration per instruction needs tokens of shape [*B, L], got None.",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()
