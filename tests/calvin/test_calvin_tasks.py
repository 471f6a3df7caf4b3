"""CALVIN's tasks and instructions."""

import re

import pytest
import yaml

from rftf_torchrl import load_sentences
from rftf_torchrl.calvin.tasks import TASKS, get_task


def write_sentences(root, name, content):
    folder = root / "calvin_models" / "conf" / "annotations"
    folder.mkdir(parents=True)
    (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / name


def test_tasks_have_the_benchmarks_order():
    names = list(TASKS)
    assert len(names) == 34
    assert [TASKS[name].id for name in names] == list(range(34))
    assert names[0] == "rotate_red_block_right"
    assert names[12:18] == [
        "move_slider_left",
        "move_slider_right",
        "open_drawer",
        "close_drawer",
        "lift_red_block_table",
        "lift_red_block_slider",
    ]
    assert names[25:29] == ["place_in_slider", "place_in_drawer", "stack_block", "unstack_block"]
    assert names[29:] == [
        "turn_on_lightbulb",
        "turn_off_lightbulb",
        "turn_on_led",
        "turn_off_led",
        "push_into_drawer",
    ]


def test_there_are_eleven_kinds_and_a_sentence_for_each_task():
    assert len({task.category for task in TASKS.values()}) == 11
    assert len({task.instruction for task in TASKS.values()}) == 34


def test_unknown_task():
    with pytest.raises(ValueError, match="unknown CALVIN task 'fly'; choose from rotate_red_block"):
        get_task("fly")


def test_sentences_come_from_the_checkout(tmp_path):
    said = {name: [f"please {name} ", "again"] for name in reversed(TASKS)}
    write_sentences(tmp_path, "new_playtable.yaml", said)
    sentences = load_sentences(tmp_path, "training")
    assert list(sentences) == list(TASKS)
    assert sentences["open_drawer"] == ("please open_drawer", "again")


def test_sentences_of_the_wrong_split(tmp_path):
    with pytest.raises(ValueError, match="split must be 'training' or 'validation', got 'test'"):
        load_sentences(tmp_path, "test")


def test_sentences_without_a_checkout(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"expected a checkout of https://github.com/mees/calvin at "
    ):
        load_sentences(tmp_path, "validation")


def test_sentences_that_lack_a_task(tmp_path):
    said = {name: [name] for name in TASKS if name != "open_drawer"}
    path = write_sentences(tmp_path, "new_playtable_validation.yaml", {**said, "stack_block": []})
    message = f"{path} has no list of instructions for open_drawer, stack_block"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_sentences(tmp_path, "validation")


@pytest.mark.parametrize("said", ["pull it", [""], [1], 3])
def test_sentences_that_are_no_list_of_texts(tmp_path, said):
    sentences = {name: [name] for name in TASKS} | {"open_drawer": said}
    path = write_sentences(tmp_path, "new_playtable_validation.yaml", sentences)
    message = f"{path} has no list of instructions for open_drawer"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_sentences(tmp_path, "validation")


def test_sentences_that_are_no_yaml(tmp_path):
    path = write_sentences(tmp_path, "new_playtable_validation.yaml", {})
    path.write_text("open_drawer: [", encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is no YAML file: "):
        load_sentences(tmp_path, "validation")


def test_sentences_that_are_a_list(tmp_path):
    path = write_sentences(tmp_path, "new_playtable_validation.yaml", ["open the drawer"])
    message = f"{path} holds no mapping from tasks to instructions"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_sentences(tmp_path, "validation")
