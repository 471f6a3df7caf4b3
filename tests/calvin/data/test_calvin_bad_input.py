"""Every bad input is one clear error that names file, episode and key."""

import re

import numpy as np
import pytest

from rftf_torchrl import CalvinDataset, DemonstrationError, to_demonstrations

ANNOTATIONS = "lang_annotations/auto_lang_ann.npy"


def refuse(call, *lines):
    what, *problems = lines
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)} found:"
    message = "\n  - ".join([f"{what}: {count}", *problems])
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        call()


def action(**changes):
    vector = np.zeros(7)
    vector[6] = 1
    for index, value in changes.items():
        vector[int(index[1:])] = value
    return vector


FRAMES = {
    "missing key": ({"rel_actions": None}, "key 'rel_actions': missing"),
    "action of another shape": (
        {"rel_actions": np.zeros(8)},
        "key 'rel_actions': shape (8,), expected (7,)",
    ),
    "NaN action": (
        {"rel_actions": action(_3=np.nan)},
        "key 'rel_actions': index 3 is nan, expected a finite number",
    ),
    "infinite action": (
        {"actions": action(_0=-np.inf)},
        "key 'actions': index 0 is -inf, expected a finite number",
    ),
    "gripper 0.5": (
        {"rel_actions": action(_6=0.5)},
        "key 'rel_actions': the gripper (index 6) is 0.5, expected exactly 1.0 (open) or -1.0 "
        "(close)",
    ),
    "action too far": (
        {"rel_actions": action(_5=1.25)},
        "key 'rel_actions': index 5 is 1.25, expected -1 to 1",
    ),
    "integer action": (
        {"rel_actions": np.ones(7, dtype=np.int64)},
        "key 'rel_actions': dtype int64, expected a floating-point dtype",
    ),
    "NaN robot": (
        {"robot_obs": np.full(15, np.nan)},
        "key 'robot_obs': index 0 is nan, expected a finite number",
    ),
    "scene of another shape": (
        {"scene_obs": np.zeros((1, 24))},
        "key 'scene_obs': shape (1, 24), expected (24,)",
    ),
    "no picture": ({"rgb_static": None}, "key 'rgb_static': missing"),
    "float picture": (
        {"rgb_static": np.zeros((10, 10, 3))},
        "key 'rgb_static': dtype float64, expected uint8",
    ),
    "picture with channels first": (
        {"rgb_static": np.zeros((3, 10, 10), np.uint8)},
        "key 'rgb_static': shape (3, 10, 10), expected [height, width, 3]",
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_broken_frame(calvin_root, change_frame, tmp_path, name):
    change, problem = FRAMES[name]
    change_frame(101, **change)
    where = f"CALVIN data in {calvin_root / 'training'}"
    line = f"episode_0000101.npz: {problem}"
    dataset = CalvinDataset(calvin_root, image_size=10)
    assert len(dataset.read_frames(64, 100)) == 36
    refuse(lambda: dataset.read_frames(100, 103), f"{where}, episode 1", line)
    convert = lambda: to_demonstrations(calvin_root, tmp_path / "out", image_size=10)  # noqa: E731
    refuse(convert, f"{where}, annotation 2", line)


def test_a_frame_of_objects_does_not_run(calvin_root, change_frame):
    change_frame(64, rel_actions=np.array([{}], dtype=object))
    refuse(
        lambda: CalvinDataset(calvin_root).read_frames(64, 66),
        f"CALVIN data in {calvin_root / 'training'}, episode 0",
        "episode_0000064.npz: corrupt or truncated (Object arrays cannot be loaded when "
        "allow_pickle=False): copy or download it again",
    )


def test_a_missing_frame(calvin_root):
    (calvin_root / "training" / "episode_0000065.npz").unlink()
    refuse(
        lambda: CalvinDataset(calvin_root).read_frames(64, 66),
        f"CALVIN data in {calvin_root / 'training'}, episode 0",
        "episode_0000065.npz: missing, but ep_start_end_ids.npy counts it",
    )


@pytest.mark.parametrize("size", [0, 1, 50, 200, 0.5, 0.9, 0.99])
def test_a_truncated_frame(calvin_root, size):
    file = calvin_root / "training" / "episode_0000065.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: size if isinstance(size, int) else int(size * len(whole))])
    where = f"CALVIN data in {calvin_root / 'training'}, episode 0: 1 problem found:"
    message = rf"{re.escape(where)}\n  - episode_0000065\.npz: corrupt or truncated \(.*\): copy"
    with pytest.raises(DemonstrationError, match=message):
        CalvinDataset(calvin_root).read_frames(64, 66)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_a_corrupt_frame(calvin_root, seed):
    file = calvin_root / "training" / "episode_0000065.npz"
    whole = file.read_bytes()
    random = np.random.default_rng(seed)
    errors = 0
    for _ in range(100):
        broken = bytearray(whole)
        broken[random.integers(len(broken))] ^= 0xFF
        file.write_bytes(broken)
        try:
            CalvinDataset(calvin_root).read_frames(65, 66)
        except DemonstrationError:
            errors += 1
    assert errors > 25


def changed_annotations(root, change):
    file = root / "training" / ANNOTATIONS
    content = np.load(file, allow_pickle=True).item()
    content = change(content) or content
    array = np.empty((), dtype=object)
    array[()] = content
    np.save(file, array)


def set_span(index, start, stop):
    def change(content):
        content["info"]["indx"][index] = (start, stop)

    return change


def set_language(key, index, value):
    def change(content):
        content["language"][key][index] = value

    return change


RANGE = "are out of range: no episode has these frames"
SPANS = {
    "start before the first frame": (
        set_span(1, 0, 90),
        [f"annotation 1: start 0, end 90 (exclusive) {RANGE}"],
    ),
    "end after the last frame": (
        set_span(3, 118, 137),
        [f"annotation 3: start 118, end 137 (exclusive) {RANGE}; episode 1 has 100 to 135"],
    ),
    "two episodes": (
        set_span(0, 90, 110),
        [f"annotation 0: start 90, end 110 (exclusive) {RANGE}; episode 0 has 64 to 99"],
    ),
    "end before start": (
        set_span(0, 90, 80),
        ["annotation 0: start 90, end 80 (exclusive): expected 2 frames or more"],
    ),
    "half frames": (
        set_span(0, 70.5, 80),
        ["annotation 0: 'indx' is (70.5, 80), expected two frame numbers"],
    ),
    "unknown task": (
        set_language("task", 2, "open_door"),
        ["annotation 2: unknown task 'open_door'"],
    ),
    "empty sentence": (set_language("ann", 2, ""), ["annotation 2: the instruction is empty"]),
    "sentence that is a number": (
        set_language("ann", 2, 5),
        ["annotation 2: 'task' and 'ann' must be text"],
    ),
    "two at once": (
        lambda content: content["language"].update(task=["a", "open_drawer", "b", "open_drawer"]),
        ["annotation 0: unknown task 'a'", "annotation 2: unknown task 'b'"],
    ),
    "missing sentences": (
        lambda content: content["language"].pop("ann") and None,
        ["key 'language', 'ann': missing, or not a list"],
    ),
    "a sentence fewer": (
        lambda content: content["language"]["ann"].pop() and None,
        ["entries of different lengths: 4 in 'indx', 4 in 'task', 3 in 'ann'"],
    ),
    "a policy that led for less than nothing": (
        lambda content: content["language"].update(takeover=[0, -1, 0, 0]) and None,
        ["annotation 1: 'takeover' is -1, expected 0 or more"],
    ),
    "something else": (
        lambda content: [1],
        [
            "key 'info', 'indx': missing, or not a list",
            "key 'language', 'task': missing, or not a list",
            "key 'language', 'ann': missing, or not a list",
        ],
    ),
}


@pytest.mark.parametrize("name", SPANS)
def test_broken_annotations(calvin_root, tmp_path, name):
    change, problems = SPANS[name]
    changed_annotations(calvin_root, change)
    refuse(
        lambda: to_demonstrations(calvin_root, tmp_path / "out"),
        f"CALVIN data in {calvin_root / 'training'}",
        *(f"{ANNOTATIONS}: {problem}" for problem in problems),
    )
    assert not (tmp_path / "out").exists()


def test_many_broken_annotations_are_cut_short(calvin_root):
    changed_annotations(
        calvin_root,
        lambda content: {
            "info": {"indx": [(64, 70)] * 50},
            "language": {"task": ["a"] * 50, "ann": ["b"] * 50},
        },
    )
    with pytest.raises(DemonstrationError) as raised:
        _ = CalvinDataset(calvin_root).spans
    assert len(raised.value.problems) == 21
    assert raised.value.problems[-1] == f"{ANNOTATIONS}: and 30 more problems like these"


def test_a_missing_annotation_file(calvin_root, tmp_path):
    (calvin_root / "training" / ANNOTATIONS).unlink()
    refuse(
        lambda: to_demonstrations(calvin_root, tmp_path / "out"),
        f"CALVIN data in {calvin_root / 'training'}",
        f"{ANNOTATIONS}: missing; without annotations there are frames only",
    )


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').write('run')",)


@pytest.mark.parametrize("name", ["scene_info.npy", ANNOTATIONS, "ep_start_end_ids.npy"])
def test_a_malicious_file_does_not_run(calvin_root, tmp_path, name):
    array = np.empty((), dtype=object)
    array[()] = Runs(tmp_path / "was-run")
    file = calvin_root / "training" / name
    np.save(file, array)
    with pytest.raises(DemonstrationError, match=r"refused: it asks for builtins\.exec") as raised:
        to_demonstrations(calvin_root, tmp_path / "out")
    assert str(raised.value).startswith(f"{file}: 1 problem found:")
    assert not (tmp_path / "was-run").exists()


def test_a_sentence_that_the_tokenizer_refuses(calvin_root, tmp_path):
    changed_annotations(calvin_root, set_language("ann", 2, "word " * 17))
    with pytest.raises(DemonstrationError, match=r"annotation 2: 1 problem found:\n  - annotation"):
        to_demonstrations(calvin_root, tmp_path / "out")


SCENES = {
    "unknown scene": (
        {"calvin_scene_E": [64, 135]},
        "unknown scene 'calvin_scene_E', expected one of ['calvin_scene_A', 'calvin_scene_B', "
        "'calvin_scene_C', 'calvin_scene_D']",
    ),
    "an episode in no scene": (
        {"calvin_scene_D": [64, 120]},
        "episode 1 (frames 100 to 135) is in no scene",
    ),
    "no frame numbers": (
        {"calvin_scene_D": "all"},
        "scene 'calvin_scene_D': all, expected two frame numbers",
    ),
    "a list": ([1, 2], "expected a dictionary of scenes"),
}


@pytest.mark.parametrize("name", SCENES)
def test_broken_scenes(calvin_root, name):
    content, problem = SCENES[name]
    array = np.empty((), dtype=object)
    array[()] = content
    np.save(calvin_root / "training" / "scene_info.npy", array)
    where = f"CALVIN data in {calvin_root / 'training'}"
    refuse(lambda: CalvinDataset(calvin_root), where, f"scene_info.npy: {problem}")


def test_an_unknown_scene_as_argument(calvin_root):
    with pytest.raises(ValueError, match=r"^scene is 'E', expected one of \['A', 'B', 'C', 'D'\]"):
        CalvinDataset(calvin_root, scene="E")


EPISODES = {
    "three columns": (np.ones((1, 3), int), "shape (1, 3), expected (episodes, 2)"),
    "no episode": (np.ones((0, 2), int), "shape (0, 2), expected (episodes, 2)"),
    "floats": (np.ones((1, 2)), "expected an array of integers"),
    "backwards": (np.array([[64, 70], [90, 80]]), "episode 1: first frame 90, last frame 80"),
    "shared frames": (np.array([[80, 90], [64, 80]]), "episodes 1 and 0 share frame 80"),
}


@pytest.mark.parametrize("name", EPISODES)
def test_broken_episodes(calvin_root, name):
    content, problem = EPISODES[name]
    np.save(calvin_root / "training" / "ep_start_end_ids.npy", content)
    where = f"CALVIN data in {calvin_root / 'training'}"
    refuse(lambda: CalvinDataset(calvin_root), where, f"ep_start_end_ids.npy: {problem}")


def test_missing_episodes(calvin_root):
    (calvin_root / "training" / "ep_start_end_ids.npy").unlink()
    where = f"CALVIN data in {calvin_root / 'training'}"
    refuse(lambda: CalvinDataset(calvin_root), where, "ep_start_end_ids.npy: missing")
