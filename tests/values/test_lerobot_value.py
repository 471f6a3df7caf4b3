"""LeRobot's reward models as value models, on stand-ins of its classes."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from _lerobot_rewards import IMAGE, STATE, install_stand_ins, save_config
from safetensors.torch import save_file
from tensordict import TensorDict

from rftf_torchrl import (
    Demonstrations,
    HashTokenizer,
    LeRobotValue,
    ObservationSizes,
    StateValues,
    build_value_model,
    keys,
    lerobot_value,
    score_demonstrations,
    task_instructions,
    value_report,
)
from rftf_torchrl.data.format import Episode, Task

SENTENCES = ["push", "pull it"]
SIZES = ObservationSizes(image_size=4, state_dim=2)
INPUTS = {IMAGE: keys.IMAGE}


@pytest.fixture(autouse=True)
def _lerobot(monkeypatch):
    install_stand_ins(monkeypatch)


def states(levels, sentences):
    """One state each: an image of one grey level, and the state (level, 1)."""
    level = torch.tensor(levels, dtype=torch.uint8)
    tokens, mask = HashTokenizer()(sentences)
    return TensorDict(
        {
            "observation": {
                "image": level[:, None, None, None].expand(-1, 3, 4, 4).contiguous(),
                "state": torch.stack([level.float(), torch.ones(len(level))], -1),
            },
            "instruction": {"tokens": tokens, "mask": mask},
        },
        [len(levels)],
    )


def values(model, data):
    return model(data.copy())["temporal_value"].flatten().tolist()


@pytest.mark.parametrize("kind", ["robometer", "topreward"])
def test_each_state_with_its_sentence_through_the_preprocessor(tmp_path, kind):
    options = {"path": save_config(tmp_path, kind), "sentences": SENTENCES}
    model = build_value_model("lerobot", options, SIZES)
    data = states([0, 255, 51], ["push", "pull it", "push"])
    assert values(model, data) == pytest.approx([4.0, 8.0, 4.2])
    flat = model(data.copy())["temporal_value"].reshape(3, 1, 1)
    assert torch.equal(model(data.reshape(3, 1))["temporal_value"], flat)


def test_sarm_sees_a_state_that_stands_still_and_every_sentence(tmp_path):
    options = {"path": save_config(tmp_path, "sarm"), "sentences": SENTENCES}
    save_file(
        {f"{STATE}.mean": torch.tensor([1.0, 1.0]), f"{STATE}.std": torch.tensor([2.0, 1.0])},
        tmp_path / "policy_preprocessor_step_2_normalizer_processor.safetensors",
    )
    model = build_value_model("lerobot", options, SIZES)
    found = values(model, states([255, 51, 51], ["pull it", "push", "pull it"]))
    assert found == pytest.approx([1 + 127 + 7, 0.2 + 25 + 4, 0.2 + 25 + 7])


def test_a_classifier_gets_pictures_normalised_as_in_training(tmp_path):
    path = save_config(tmp_path, "reward_classifier")
    message = (
        f"{path}: the model was trained on normalised {IMAGE}, and the folder has no statistics of "
        "a preprocessor: save LeRobot's preprocessor there, by "
        "preprocessor.save_pretrained(folder)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LeRobotValue(path).build(SIZES)
    save_file(
        {f"{IMAGE}.mean": torch.full((3, 1, 1), 0.5), f"{IMAGE}.std": torch.full((3, 1, 1), 0.25)},
        tmp_path / "classifier_preprocessor_step_0_normalizer_processor.safetensors",
    )
    assert values(LeRobotValue(path).build(SIZES), states([255, 0], ["a", "b"])) == [2.0, -2.0]


def test_its_values_reward_transitions_and_its_weights_stay_where_they_are(tmp_path):
    path = save_config(tmp_path, "robometer")
    model = LeRobotValue(path, sentences=tuple(SENTENCES)).build(SIZES).to("meta")
    data = states([0, 51, 102], ["push"] * 3)
    steps = data[:-1].copy()
    steps["next"] = data[1:].select("observation")
    done = StateValues(model)(steps)
    assert done["next", "temporal_value"].flatten().tolist() == pytest.approx([4.2, 4.4])
    assert list(model.parameters()) == []


def test_a_value_report_on_it():
    class Progress:
        def compute_reward(self, batch):
            told = torch.tensor([float(task == "push") for task in batch["task"]])
            return batch[IMAGE].mean((1, 2, 3)) * told

    frames = states([0, 51, 102] * 2, ["push"] * 3 + ["pull it"] * 3)
    frames[keys.TASK_ID] = torch.tensor([[0], [0], [0], [1], [1], [1]])
    shown = Demonstrations(
        root=Path("nowhere"),
        frames=frames,
        episodes=(Episode(0, 0, 0, 3, True), Episode(1, 1, 3, 6, True)),
        tasks=(Task(0, "push", "push"), Task(1, "pull", "pull it")),
        simulator="toy",
        action_repeat=1,
        complete=True,
    )
    model = lerobot_value(Progress(), INPUTS, sentences=SENTENCES)
    scored = score_demonstrations(
        model, shown, task_instructions(shown), generator=torch.Generator().manual_seed(0)
    )
    report = value_report(scored, resamples=10)
    assert report.tasks["push"]["demonstration"]["pairwise_accuracy"].value == 1.0
    assert report.tasks["push"]["wrong_instruction"]["pairwise_accuracy"].value == 0.5


class Two:
    def compute_reward(self, batch):
        return batch[IMAGE].flatten(1)[:, :2]


class One:
    def compute_reward(self, batch):
        return batch[IMAGE].flatten(1)[:, :1]


def test_one_number_each():
    assert values(lerobot_value(One(), INPUTS), states([255, 0], ["a", "b"])) == [1.0, 0.0]
    message = "Two.compute_reward must give one number for each of 3 states, got shape (3, 2)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        values(lerobot_value(Two(), INPUTS), states([0, 0, 0], ["a", "b", "c"]))


@pytest.mark.parametrize("words", [2, 24])
def test_sentences_are_found_whatever_the_longest_is(words):
    data = states([255, 0], ["a", "b"])
    tokens, mask = HashTokenizer(max_length=words)(["push", "pull it"])
    data["instruction"].update({"tokens": tokens, "mask": mask})
    sentences = [*SENTENCES, " ".join(["far"] * 20)]
    assert values(lerobot_value(One(), INPUTS, sentences=sentences), data) == [1.0, 0.0]


def test_sentences_that_are_not_told_apart_or_not_listed():
    message = "the instructions 'Push.' and 'push' have the same tokens: leave one out."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lerobot_value(One(), INPUTS, sentences=["lift", "Push.", "push"])
    data = states([0, 0], ["push", "open"])
    number = int(data[1]["instruction", "tokens"][0])
    message = (
        f"the instruction of row 1 is none of the 2 instructions, by its tokens [{number}]: list "
        "every instruction of the data in sentences (value.options.sentences)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        values(lerobot_value(One(), INPUTS, sentences=SENTENCES), data)


def test_a_model_that_needs_words_or_names(tmp_path):
    path = save_config(tmp_path, "topreward")
    message = (
        f"{path}: a 'topreward' model reads the instruction of the task: list those of your tasks "
        "in value.options.sentences."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LeRobotValue(path).build(SIZES)
    path = save_config(tmp_path, "two_cameras")
    message = (
        f"{path} has 2 cameras ({IMAGE}, observation.images.wrist): say in value.options.inputs "
        "which of our keys each of its inputs gets, e.g. {observation.images.top: [observation, "
        "image]}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LeRobotValue(path).build(SIZES)
    options = {"path": path, "inputs": {IMAGE: ["observation", "image"]}}
    model = build_value_model("lerobot", options, SIZES)
    assert values(model, states([255], ["a"])) == [1.0]


def test_an_older_lerobot(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
        monkeypatch.delitem(sys.modules, name)
    older = ModuleType("lerobot")
    older.__version__, older.__path__ = "0.4.4", []
    monkeypatch.setitem(sys.modules, "lerobot", older)
    message = (
        "there is no lerobot.rewards: LeRobot has reward models as of 0.6 (for Python 3.12), and "
        "0.4.4 is installed. Install another: pip install -U 'rftf-torchrl[lerobot]'"
    )
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$"):
        LeRobotValue("folder").build(SIZES)
