import math
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.nn.functional import logsigmoid
from torchrl.modules import ValueOperator

from rftf_torchrl import (
    EncoderConfig,
    TemporalRankingLoss,
    TemporalValueModel,
    pairwise_accuracy,
    temporal_value_model,
)


class Identity(nn.Module):
    """Scores a frame by the number that it holds, minus ten times the distance of its token."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, score: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.gain * (score - tokens.float())


def model() -> TemporalValueModel:
    return TemporalValueModel(Identity(), in_keys=["score", ("instruction", "tokens")])


def clips(scores: list[list[float]], tokens: list[int] | None = None, **entries) -> TensorDict:
    values = torch.tensor(scores).unsqueeze(-1)
    rows, frames = values.shape[:2]
    token = torch.tensor([0] * rows if tokens is None else tokens)
    data = {
        "score": values,
        "instruction": {"tokens": token[:, None, None].expand(rows, frames, 1)},
        **entries,
    }
    return TensorDict(data, [rows, frames])


def per_row(flags: list[bool], frames: int) -> torch.Tensor:
    return torch.tensor(flags)[:, None, None].expand(-1, frames, 1)


def nls(gap: float) -> float:
    return math.log1p(math.exp(-gap))


def test_ranking_by_hand():
    out = TemporalRankingLoss(model())(clips([[0.0, 1.0, 3.0]]))
    expected = (nls(1) + nls(3) + nls(2)) / 3
    torch.testing.assert_close(out["loss_ranking"].detach(), torch.tensor(expected))
    assert out["pairwise_accuracy"] == 1
    assert set(out.keys()) == {"loss_ranking", "pairwise_accuracy"}


def test_out_keys_are_what_forward_returns():
    loss = TemporalRankingLoss(model(), wrong_instruction=1.0, failures=1.0)
    assert set(loss.out_keys) == set(loss(clips([[0.0, 1.0]])).keys())


def test_masked_frames_do_not_count():
    mask = torch.tensor([[True, True, False]])
    masked = TemporalRankingLoss(model())(clips([[0.0, 1.0, -9.0]], frame_mask=mask))
    whole = TemporalRankingLoss(model())(clips([[0.0, 1.0]]))
    assert torch.equal(masked["loss_ranking"], whole["loss_ranking"])
    assert masked["pairwise_accuracy"] == 1


def test_failed_clips_are_not_ranked():
    data = clips([[0.0, 1.0], [5.0, -5.0]], trajectory_success=per_row([True, False], 2))
    out = TemporalRankingLoss(model())(data)
    torch.testing.assert_close(out["loss_ranking"].detach(), torch.tensor(nls(1)))


def test_without_any_success_the_loss_is_zero_and_can_be_differentiated():
    value_model = model()
    data = clips([[0.0, 1.0]], trajectory_success=per_row([False], 2))
    loss = TemporalRankingLoss(value_model, wrong_instruction=1.0, failures=1.0)
    out = loss(data)
    total = out["loss_ranking"] + out["loss_wrong_instruction"] + out["loss_failures"]
    total.backward()
    assert total == 0
    assert value_model.network.gain.grad == 0
    assert out["pairwise_accuracy"].isnan()


def test_pair_distance_by_hand():
    """The second of three frames stands at a quarter of the episode, the third at its end."""
    progress = torch.tensor([[0.0, 0.25, 1.0]]).unsqueeze(-1)
    data = clips([[0.0, 1.0, 3.0]], frame_progress=progress)
    loss = TemporalRankingLoss(model(), pair_distance=8.0)
    assert "frame_progress" in loss.in_keys
    expected = 0.0
    for gap, distance in ((1, 2), (3, 8), (2, 6)):
        target = 1 / (1 + math.exp(-distance))
        expected += (target * nls(gap) + (1 - target) * nls(-gap)) / 3
    torch.testing.assert_close(loss(data)["loss_ranking"].detach(), torch.tensor(expected))


def test_a_large_pair_distance_is_order_alone():
    progress = torch.tensor([[0.0, 0.25, 1.0]]).unsqueeze(-1)
    data = clips([[0.0, 1.0, 3.0]], frame_progress=progress)
    far = TemporalRankingLoss(model(), pair_distance=1e6)(data)["loss_ranking"]
    assert torch.equal(far, TemporalRankingLoss(model())(data)["loss_ranking"])


def test_wrong_instruction_by_hand():
    """Row 0 meets row 1's token and row 1 row 2's; row 2 meets row 0's, the next that differs."""
    data = clips([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], tokens=[0, 1, 1])
    out = TemporalRankingLoss(model(), wrong_instruction=0.5)(data)
    right = torch.tensor([1.0, 2.0 - 1, 3.0 - 1])
    wrong = torch.tensor([1.0 - 1, 2.0, 3.0])
    expected = 0.5 * -logsigmoid(right - wrong).mean()
    torch.testing.assert_close(out["loss_wrong_instruction"].detach(), expected)


def test_wrong_instruction_needs_two_instructions():
    out = TemporalRankingLoss(model(), wrong_instruction=1.0)(clips([[0.0, 1.0], [0.0, 2.0]]))
    assert out["loss_wrong_instruction"] == 0


def test_other_words_for_the_same_task_are_not_wrong():
    """Rows 0 and 1 are of one task in other words: row 0 meets row 2's token, row 1 too."""
    data = clips([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], tokens=[0, 1, 2])
    data["task_id"] = torch.tensor([0, 0, 5])[:, None, None].expand(3, 2, 1)
    out = TemporalRankingLoss(model(), wrong_instruction=1.0)(data)
    right, wrong = torch.tensor([1.0, 2 - 1.0, 3 - 2.0]), torch.tensor([1.0 - 2, 2 - 2.0, 3.0])
    expected = -logsigmoid(right - wrong).mean()
    torch.testing.assert_close(out["loss_wrong_instruction"].detach(), expected)
    one_task = TemporalRankingLoss(model(), wrong_instruction=1.0)(data[:2])
    assert one_task["loss_wrong_instruction"] == 0


def test_wrong_instruction_uses_the_last_real_frame():
    mask = torch.tensor([[True, False], [True, True]])
    data = clips([[4.0, 9.0], [0.0, 2.0]], tokens=[0, 1], frame_mask=mask)
    out = TemporalRankingLoss(model(), wrong_instruction=1.0)(data)
    expected = -logsigmoid(torch.tensor([4.0 - 3.0, 1.0 - 2.0])).mean()
    torch.testing.assert_close(out["loss_wrong_instruction"].detach(), expected)


def test_a_failures_last_frame_does_not_say_which_instruction_is_right():
    data = clips([[0.0, 1.0], [0.0, 2.0], [0.0, 9.0]], tokens=[0, 1, 2])
    data["trajectory_success"] = per_row([True, True, False], 2)
    loss = TemporalRankingLoss(model(), wrong_instruction=1.0)
    expected = loss(data[:2])["loss_wrong_instruction"]
    assert torch.equal(loss(data)["loss_wrong_instruction"], expected)


def test_padded_frames_of_a_failure_count_for_nothing():
    mask = torch.tensor([[True, True], [True, False]])
    success = per_row([True, False], 2)
    data = clips([[0.0, 3.0], [1.0, 9.0]], trajectory_success=success, frame_mask=mask)
    out = TemporalRankingLoss(model(), failures=1.0)(data)
    torch.testing.assert_close(out["loss_failures"].detach(), torch.tensor(nls(3 - 1)))


@pytest.mark.parametrize("by", ["tokens", "task_id"])
def test_failures_by_hand(by):
    """Row 0 (success) is compared with both frames of row 1, its task; row 2 has another task."""
    data = clips(
        [[0.0, 3.0], [1.0, 2.0], [9.0, 9.0]],
        tokens=[0, 0, 5] if by == "tokens" else [0, 0, 0],
        trajectory_success=per_row([True, False, False], 2),
    )
    if by == "task_id":
        data["task_id"] = torch.tensor([7, 7, 8])[:, None, None].expand(3, 2, 1)
    out = TemporalRankingLoss(model(), failures=2.0)(data)
    expected = 2.0 * (nls(3 - 1) + nls(3 - 2)) / 2
    torch.testing.assert_close(out["loss_failures"].detach(), torch.tensor(expected))


def test_the_raw_score_is_trained_whatever_the_calibration():
    value_model, data = model(), clips([[0.0, 1.0, 3.0]])
    before = TemporalRankingLoss(value_model)(data)["loss_ranking"]
    value_model.calibration.fit(torch.zeros(1), torch.full((1,), 100.0), mode="global")
    assert torch.equal(TemporalRankingLoss(value_model)(data)["loss_ranking"], before)


def test_any_module_that_writes_a_value():
    module = TensorDictModule(nn.Identity(), ["score"], ["progress"])
    loss = TemporalRankingLoss(module)
    loss.set_keys(temporal_value="progress")
    data = clips([[0.0, 1.0]])
    torch.testing.assert_close(loss(data)["loss_ranking"], torch.tensor(nls(1)))
    assert data.get("progress", None) is None


def test_the_value_operator_of_torchrl_is_a_value_model():
    """It writes ``"state_value"``."""
    operator = ValueOperator(nn.Linear(2, 1), in_keys=["state"])
    data = TensorDict({"state": torch.randn(2, 3, 2)}, [2, 3])
    out = TemporalRankingLoss(operator)(data)
    plain = TensorDictModule(operator.module, ["state"], ["temporal_value"])
    assert torch.equal(out["loss_ranking"], TemporalRankingLoss(plain)(data)["loss_ranking"])
    other = TensorDictModule(operator.module, ["state"], ["something"])
    message = "value_key 'temporal_value' is not among the value model's out_keys ['something']."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TemporalRankingLoss(other)(data)


class NoActions(TensorDict):
    """Raises when an action is read."""

    def _refuse(self, key):
        if (key if isinstance(key, str) else key[0]) in ("action", "vla_action"):
            raise AssertionError(f"action {key!r} was read")

    def get(self, key, *args, **kwargs):
        self._refuse(key)
        return super().get(key, *args, **kwargs)

    def __getitem__(self, index):
        if isinstance(index, str) or (
            isinstance(index, tuple) and all(isinstance(part, str) for part in index)
        ):
            self._refuse(index)
        return super().__getitem__(index)


def test_no_action_is_read():
    plain = clips([[0.0, 1.0], [0.0, 2.0]], trajectory_success=per_row([True, False], 2))
    guarded = NoActions({**plain, "action": torch.zeros(2, 2, 1)}, [2, 2])
    with pytest.raises(AssertionError, match="action 'action' was read"):
        guarded.get("action")
    loss = TemporalRankingLoss(model(), failures=1.0)
    assert torch.equal(loss(guarded)["loss_failures"], loss(plain)["loss_failures"])


def moving_square(clips_: int, frames: int, seed: int) -> torch.Tensor:
    """Clips in which a bright square moves right by one pixel per frame, on a random row."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 13, (clips_,), generator=generator)
    image = torch.randint(0, 60, (clips_, frames, 3, 16, 16), generator=generator)
    for clip, row in enumerate(rows.tolist()):
        for frame in range(frames):
            image[clip, frame, :, row : row + 3, frame : frame + 3] = 250
    return image.to(torch.uint8)


def video(image: torch.Tensor) -> TensorDict:
    shape = image.shape[:2]
    return TensorDict(
        {
            "observation": {"image": image},
            "instruction": {
                "tokens": torch.ones(*shape, 2, dtype=torch.int64),
                "mask": torch.ones(*shape, 2, dtype=torch.bool),
            },
        },
        shape,
    )


@pytest.mark.parametrize("shuffled", [False, True])
def test_it_learns_time_from_video_and_nothing_from_shuffled_video(shuffled):
    torch.manual_seed(0)
    config = EncoderConfig(image_size=16, channels=(8, 8, 8), text_dim=8, image_dim=32, features=32)
    value_model = temporal_value_model(config)
    loss = TemporalRankingLoss(value_model)
    optimizer = torch.optim.Adam(loss.parameters(), lr=2e-3)
    for step in range(60):
        image = moving_square(8, 12, step)
        if shuffled:
            order = torch.rand(8, 12).argsort(-1)
            image = image[torch.arange(8)[:, None], order]
        out = loss(video(image))
        optimizer.zero_grad()
        out["loss_ranking"].backward()
        optimizer.step()
    with torch.no_grad():
        held_out = value_model.raw(video(moving_square(64, 12, 10_000))).squeeze(-1)
    accuracy = float(pairwise_accuracy(held_out))
    if shuffled:
        assert abs(accuracy - 0.5) < 0.15
        assert abs(float(out["loss_ranking"].detach()) - math.log(2)) < 0.01
    else:
        assert accuracy > 0.9


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda: TemporalRankingLoss(model(), failures=-1.0),
            "failures is a weight and must not be negative, got -1.0.",
        ),
        (
            lambda: TemporalRankingLoss(model(), pair_distance=-1.0),
            "pair_distance must not be negative, got -1.0.",
        ),
        (
            lambda: TemporalRankingLoss(model())(clips([[0.0, 1.0]])[0]),
            "tensordict must have batch size [clips, frames], got (2,).",
        ),
    ],
)
def test_errors(broken, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        broken()


def test_missing_tokens_are_named():
    value_model = TemporalValueModel(nn.Identity(), in_keys=["score"])
    data = TensorDict({"score": torch.zeros(2, 3, 1)}, [2, 3])
    with pytest.raises(KeyError) as caught:
        TemporalRankingLoss(value_model, failures=1.0)(data)
    assert caught.value.args == (
        "this loss term needs the instruction tokens at ('instruction', 'tokens'): add them, or "
        "set its weight to 0.",
    )


def test_missing_progress_is_named():
    with pytest.raises(KeyError) as caught:
        TemporalRankingLoss(model(), pair_distance=10.0)(clips([[0.0, 1.0]]))
    assert caught.value.args == (
        "pair_distance needs the share of the episode before each frame at 'frame_progress': add "
        "it, as sample_clips does, or set pair_distance=0.",
    )


def test_a_value_model_that_reads_no_instruction_has_no_wrong_one():
    value_model = TemporalValueModel(nn.Identity(), in_keys=["score"])
    data = TensorDict({"score": torch.zeros(2, 3, 1)}, [2, 3])
    with pytest.raises(ValueError, match=r"^wrong_instruction needs a value model that reads the"):
        TemporalRankingLoss(value_model, wrong_instruction=1.0)(data)


def test_the_instruction_that_is_swapped_is_the_value_models_own():
    value_model = TemporalValueModel(Worded(), in_keys=["x", ("my", "t")], tokens_key=("my", "t"))
    tokens = torch.tensor([1, 2])[:, None, None].expand(2, 3, 1)
    data = TensorDict({"x": torch.zeros(2, 3, 1), "my": {"t": tokens}}, [2, 3])
    data["instruction", "tokens"] = tokens  # another's
    found = TemporalRankingLoss(value_model, wrong_instruction=1.0)(data)
    assert found["loss_wrong_instruction"].item() != pytest.approx(math.log(2))


class Worded(nn.Module):
    def forward(self, x, tokens):
        return x + tokens.float()


class Masked(nn.Module):
    def forward(self, x, tokens, mask):
        return x - (tokens * mask).sum(-1, keepdim=True)


def test_swapped_words_bring_their_mask():
    words, mask = ("my", "t"), ("my", "mask")
    value_model = TemporalValueModel(Masked(), in_keys=["x", words, mask], tokens_key=words)
    tokens = torch.tensor([[1, 1], [2, 2]])[:, None].expand(2, 3, 2)
    masks = torch.tensor([[1, 0], [1, 1]]).bool()[:, None].expand(2, 3, 2)
    data = TensorDict({"x": torch.zeros(2, 3, 1), "my": {"t": tokens, "mask": masks}}, [2, 3])
    loss = TemporalRankingLoss(value_model, wrong_instruction=1.0)
    loss.set_keys(token_mask=mask)
    found = float(loss(data)["loss_wrong_instruction"])
    assert found == pytest.approx((nls(3) + nls(-3)) / 2)


def test_outcome_and_task_are_those_of_the_last_frame_that_exists():
    value_model = TemporalValueModel(nn.Identity(), in_keys=["x"])
    loss = TemporalRankingLoss(value_model, failures=1.0)
    data = TensorDict({"x": torch.rand(4, 3, 1)}, [4, 3])
    data["trajectory_success"] = torch.tensor([1, 1, 0, 0]).bool()[:, None, None].repeat(1, 3, 1)
    data["task_id"] = torch.tensor([0, 1, 0, 1])[:, None, None].repeat(1, 3, 1)
    data["frame_mask"] = torch.tensor([False, True, True]).repeat(4, 1)
    expected = loss(data)
    data["trajectory_success"][:, 0] = False  # padding in front
    data["task_id"][:, 0] = 0
    assert expected["loss_failures"] > 0
    assert (loss(data) == expected).all()


def test_keywords_may_have_more_dimensions_in_common():
    loss = TemporalRankingLoss(TemporalValueModel(nn.Linear(2, 1), in_keys=["state"]))
    state = torch.rand(4, 3, 2)
    ranking, _ = loss(state=state)
    assert ranking == loss(TensorDict({"state": state}, [4, 3]))["loss_ranking"]


def test_rows_outside_of_the_mask_of_a_batch_count_for_nothing():
    loss = TemporalRankingLoss(TemporalValueModel(nn.Identity(), in_keys=["x"]))
    data = TensorDict({"x": torch.rand(4, 3, 1)}, [4, 3])
    data["collector", "mask"] = torch.tensor([True, True, False, False])[:, None].repeat(1, 3)
    assert loss(data)["loss_ranking"] == loss(data[:2])["loss_ranking"]
    layer = TemporalRankingLoss(TemporalValueModel(nn.Linear(1, 1), in_keys=["x"]))
    data["x"][2:] = math.nan
    layer(data)["loss_ranking"].backward()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters())


def test_a_batch_of_more_dimensions_is_refused():
    loss = TemporalRankingLoss(TemporalValueModel(nn.Linear(2, 1), in_keys=["state"]))
    with pytest.raises(ValueError, match=r"^tensordict must have batch size \[clips, frames\]"):
        loss(TensorDict({"state": torch.rand(4, 4, 3, 2)}, [4, 4, 3]))
