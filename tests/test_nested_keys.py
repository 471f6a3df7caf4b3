"""A nested key may be a list, as YAML writes it, wherever a nested key is taken."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from tensordict.utils import NestedKey
from torch import nn

import rftf_torchrl
from rftf_torchrl import (
    RFTFPPOLoss,
    TemporalRankingLoss,
    ValueReward,
    gaussian_actor,
    label_outcomes,
    score_module,
    values_of_states,
)
from rftf_torchrl.keys import nested_keys


def annotated():
    """What takes nested keys: public functions, and public methods of public classes."""
    for name in rftf_torchrl.__all__:
        found = getattr(rftf_torchrl, name)
        members = [(name, found)]
        if inspect.isclass(found):
            members = [
                (f"{name}.{method}", getattr(value, "__func__", value))
                for method, value in vars(found).items()
                if (method == "__init__" and not is_dataclass(found)) or method[0] != "_"
            ]
        for full, function in members:
            notes = getattr(function, "__annotations__", {})
            taken = {key for key, note in notes.items() if "NestedKey" in str(note)} - {"return"}
            if inspect.isfunction(function) and taken:
                yield full, function


FUNCTIONS = dict(annotated())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_whatever_takes_nested_keys_takes_lists(name):
    function, layers = FUNCTIONS[name], []
    while function is not None:
        layers.append(function.__code__)
        function = getattr(function, "__wrapped__", None)
    assert nested_keys(lambda: None).__code__ in layers


def test_there_are_such_functions():
    assert len(FUNCTIONS) > 40


def test_each_kind_of_argument():
    @nested_keys
    def taken(
        one: NestedKey,
        none: NestedKey | None = None,
        several: Sequence[NestedKey] | None = None,
        named: Mapping[str, NestedKey] | None = None,
        **more: NestedKey,
    ):
        return one, none, several, named, more

    listed = OmegaConf.create({"one": ["a", "b"], "several": [["a", "b"], "c"]})
    assert taken(listed.one, several=listed.several, named={"x": ["a", "b"]}, y=["a", "b"]) == (
        ("a", "b"),
        None,
        [("a", "b"), "c"],
        {"x": ("a", "b")},
        {"y": ("a", "b")},
    )
    assert taken("a", ("b", "c")) == ("a", ("b", "c"), None, None, {})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'one'"):
        taken()


def test_a_reward_under_nested_names():
    model = score_module(
        nn.Identity(),
        {"x": ["seen", "x"]},
        method=lambda model, batch: batch["x"].squeeze(-1),
        out_key=["told", "value"],
    )
    x = torch.tensor([[0.0], [0.5], [1.0]])
    ends = torch.tensor([[False], [True]])
    data = TensorDict(
        {"seen": {"x": x[:-1]}, "next": {"seen": {"x": x[1:]}, "done": ends, "terminated": ends}},
        [2],
    )
    data["next", "has", "won"] = ends
    data["collector", "traj_ids"] = torch.tensor([0, 0])
    value, _ = values_of_states(model, data, out_key=["told", "value"])
    assert value.flatten().tolist() == [0.0, 0.5]
    data = ValueReward(
        model,
        gamma=1.0,
        value_key=["told", "value"],
        success_key=["has", "won"],
        reward_key=["agent", "reward"],
    )(data)
    assert data["next", "agent", "reward"].flatten().tolist() == [0.5, 0.5]
    data = label_outcomes(data, success_key=["next", "has", "won"], out_key=["was", "won"])
    assert data["was", "won"].all()


def test_losses():
    model = TensorDictModule(nn.Linear(2, 1), ["x"], [("told", "value")])
    loss = TemporalRankingLoss(model)
    loss.set_keys(temporal_value=["told", "value"], frame_mask=["is", "real"])
    data = TensorDict({"x": torch.randn(3, 4, 2)}, [3, 4])
    data["is", "real"] = torch.ones(3, 4, dtype=torch.bool)
    loss(data)["loss_ranking"].backward()
    network = TensorDictModule(
        nn.Sequential(nn.Linear(3, 8), nn.Unflatten(-1, (4, 2))), ["state"], ["loc"]
    )
    actor = gaussian_actor(network, chunk_size=4, action_dim=2, chunk_key=["do", "this"])
    loss = RFTFPPOLoss(actor, reference_actor=actor)
    loss.set_keys(reference=["from", "before"], advantage=["told", "gain"])
    with torch.no_grad():
        data = actor(TensorDict({"state": torch.zeros(5, 3)}, [5]))
    assert data["do", "this"].shape == (5, 4, 2)
    data["told", "gain"] = torch.ones(5, 1)
    assert loss(loss.add_reference(data))["kl_reference"] == 0
    assert data["from", "before", "loc"].shape == (5, 4, 2)
