"""Damage files at random and load them: nothing that is damaged may load as something else.

    python tests/faults/corrupt_anywhere.py --each 300

Makes a tiny file or folder of each kind that a later stage reads, damages a copy of one of its
files at random (a bit flipped, a block zeroed, the end cut off, bytes inserted, two blocks swapped)
and loads it. What comes back is refused with an error that names the file or folder, refused
without naming it, equal to what was saved, or silently wrong. Prints the counts of each kind and
ends with code 1 where there is one of the second or the last.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from rftf_torchrl import (
    CalvinDataset,
    CalvinWriter,
    ChainResult,
    EncoderConfig,
    MetricsFile,
    PolicySpec,
    RunCheckpoints,
    StateBank,
    TemporalValueModel,
    initial_states,
    load_demonstrations,
    load_policy,
    read_made_by,
    read_metrics,
    save_policy,
    temporal_value_model,
    training_scene,
    write_synthetic_demonstrations,
)
from rftf_torchrl.calvin.chains.results import ChainFile
from rftf_torchrl.digests import read_record, write_record
from rftf_torchrl.rows_file import RowsFile

ENCODER = EncoderConfig(image_size=None, state_dim=3, features=8)
MADE_BY = {"seed": 3, "env.tasks": ["open-drawer"]}


def tensors(state: Any) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in state.items()}


def save_a_policy(path: Path) -> None:
    spec = PolicySpec(ENCODER, 2, 4)
    save_policy(spec.build(), spec, path, made_by=MADE_BY)


def load_a_policy(path: Path) -> Any:
    made_by = read_made_by(path)
    policy, spec = load_policy(path)
    return tensors(policy.state_dict()), spec, made_by


def save_a_value_model(path: Path) -> None:
    temporal_value_model(ENCODER).save(path, made_by=MADE_BY)


def load_a_value_model(path: Path) -> Any:
    made_by = read_made_by(path)
    model = TemporalValueModel.load(path)
    return tensors(model.state_dict()), model.in_keys, model.out_keys, model.config, made_by


def load_some_demonstrations(path: Path) -> Any:
    found = load_demonstrations(path)
    frames = dict(found.frames.items(include_nested=True, leaves_only=True))
    shapes = {name: (value.dtype, value.shape) for name, value in frames.items()}
    described = (found.episodes, found.tasks, found.simulator, found.action_repeat, found.complete)
    return tensors(frames), shapes, described, found.simulator_steps


def components() -> dict[str, Any]:
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer, "progress": {"steps": 40}}


def save_a_checkpoint(path: Path) -> None:
    RunCheckpoints(path, **components()).save(1)


def load_a_checkpoint(path: Path) -> Any:
    made = components()
    (file,) = path.glob("*.torchrl")
    RunCheckpoints(path, **made).load(file)
    moments = made["optimizer"].state_dict()["state"]
    return (
        tensors(made["model"].state_dict()),
        {number: tensors(each) for number, each in moments.items()},
        made["progress"],
        torch.rand(3).tolist(),
    )


def save_a_bank(path: Path) -> None:
    robot, scene = training_scene(initial_states()[0], seed=0)
    StateBank(robot[None], scene[None], np.array([2]), np.array([0]), "D").save(path)


def load_a_bank(path: Path) -> Any:
    bank = StateBank.load(path)
    columns = (bank.robot_obs, bank.scene_obs, bank.task, bank.depth)
    return [(column.dtype, column.tobytes()) for column in columns], bank.scene


def save_a_recording(path: Path) -> None:
    action = np.array([0.5, 0, 0, 0, 0, 0, 1.0])
    with CalvinWriter(path, scene="D") as writer:
        for step in range(4):
            last = writer.add_frame(np.full(15, step / 8), np.zeros(24), action, action)
        writer.annotate(last - 3, last + 1, "open_drawer", "pull the drawer open")


def load_a_recording(path: Path) -> Any:
    dataset = CalvinDataset(path)
    frames = [
        tensors(dict(dataset.read_span(span).items(True, leaves_only=True)))
        for span in dataset.spans
    ]
    return frames, dataset.spans, dataset.episodes.tolist(), dataset.scenes, dataset.complete


ENDED = {"policy": "run/rftf/policy.safetensors", "env_steps": 1200, "rate": 0.25}


def save_a_result(path: Path) -> None:
    write_record(path, ENDED)


def load_a_result(path: Path) -> Any:
    found = read_record(path)
    return [found[name] for name in ENDED]  # an entry that nobody reads is no damage


CHAINS = {k: ChainResult(k, ("open_drawer", "close_drawer"), (51, 60 + k), 1) for k in range(4)}


def save_some_chains(path: Path) -> None:
    file = ChainFile(path, {"seed": 0})
    for chain in CHAINS.values():
        file.add(chain)


def load_some_chains(path: Path) -> Any:
    found = ChainFile(path, {"seed": 0}).results
    return {**CHAINS, **found}  # a line that was cut off is run again


def save_some_metrics(path: Path) -> None:
    metrics = MetricsFile(path)
    for step in range(12):
        metrics.write(step, {"loss": 1 / (step + 1), **({"success": 0.5} if step % 3 else {})})
    metrics.end()


def load_some_metrics(path: Path) -> Any:
    return read_metrics(path, ended=True)


ROWS = [(bytes([number]) * 40, {"name": f"film-{number}.mp4"}) for number in range(8)]


def save_some_rows(path: Path) -> None:
    path.mkdir()
    rows = RowsFile(path / "image")
    for content, record in ROWS:
        rows.append(content, record)


def load_some_rows(path: Path) -> Any:
    rows = RowsFile(path / "image")
    found = [(rows.read(place), record) for place, record in enumerate(rows.records)]
    return found + ROWS[len(found) :]  # pieces that were cut off are made again


KINDS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "policy": ("policy.safetensors", save_a_policy, load_a_policy),
    "value model": ("value.safetensors", save_a_value_model, load_a_value_model),
    "demonstrations": ("demos", write_synthetic_demonstrations, load_some_demonstrations),
    "checkpoint": ("checkpoints", save_a_checkpoint, load_a_checkpoint),
    "CALVIN recording": ("calvin", save_a_recording, load_a_recording),
    "start states": ("states.npz", save_a_bank, load_a_bank),
    "chains": ("chains.jsonl", save_some_chains, load_some_chains),
    "metrics": ("metrics.csv", save_some_metrics, load_some_metrics),
    "result": ("ended.json", save_a_result, load_a_result),
    "decoded frames and features": ("rows", save_some_rows, load_some_rows),
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A content with one damage."""
    changed = bytearray(content)
    length = min(draw.choice([1, 8, 64, 512]), len(content))
    first = draw.randrange(len(content) - length + 1)
    how = draw.randrange(5)
    if how == 0:
        changed[first] ^= 1 << draw.randrange(8)
    elif how == 1:
        changed[first : first + length] = bytes(length)
    elif how == 2:
        del changed[draw.randrange(len(content)) :]
    elif how == 3:
        changed[first:first] = draw.randbytes(length)
    else:
        other = draw.randrange(len(content) - length + 1)
        changed[first : first + length] = content[other : other + length]
        changed[other : other + length] = content[first : first + length]
    return bytes(changed)


def outcome(load: Callable[[Path], Any], place: Path, expected: Any) -> str:
    """What loading a damaged file or folder comes to."""
    try:
        found = load(place)
    except Exception as error:
        return "refused" if str(place) in str(error) else f"unnamed ({type(error).__name__})"
    return "equal" if found == expected else "SILENTLY WRONG"


def try_kind(kind: str, count: int, draw: random.Random, work: Path) -> Counter[str]:
    """Damage and load one kind of file so many times."""
    name, save, load = KINDS[kind]
    whole, place = work / "whole" / name, work / "damaged" / name
    for parent in (whole.parent, place.parent):
        parent.mkdir(parents=True, exist_ok=True)
    save(whole)
    expected = load(whole)
    files = [whole] if whole.is_file() else sorted(f for f in whole.rglob("*") if f.is_file())
    outcomes: Counter[str] = Counter()
    while outcomes.total() < count:
        file = draw.choice(files)
        content = file.read_bytes()
        changed = damaged(content, draw)
        if changed == content:
            continue
        copy = shutil.copy2 if whole.is_file() else shutil.copytree
        copy(whole, place)
        (place / file.relative_to(whole)).write_bytes(changed)
        outcomes[outcome(load, place, expected)] += 1
        place.unlink() if place.is_file() else shutil.rmtree(place)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=300, help="damages of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as work:
        for kind in tqdm(given.kinds, disable=None):
            draw = random.Random(f"{given.seed} {kind}")
            outcomes = try_kind(kind, given.each, draw, Path(work))
            total += outcomes
            tqdm.write(f"{kind}: {dict(sorted(outcomes.items()))}")
    print(f"all {total.total()}: {dict(sorted(total.items()))}")
    sys.exit(not total.keys() <= {"refused", "equal"})


if __name__ == "__main__":
    main()
