"""TensorDicts in messages between processes."""

import pickle
import re

import pytest
import torch
from tensordict import NonTensorData, TensorDict

from rftf_torchrl.envs.packed import pack, rows, unpack, unpack_stacked
from rftf_torchrl.policies.call_on_tensors import leaves

DATA = TensorDict(
    {
        "a.b": torch.ones(2),
        ("c", "d.e"): torch.zeros(2, 3, dtype=torch.bool),
        ("c", "half"): torch.linspace(0, 1, 2).bfloat16(),
        "words": NonTensorData("open", batch_size=[2]),
    },
    [2],
)


def packed(data):
    return pack(leaves(data))


def test_tensors_text_and_keys_with_dots_come_back():
    again = unpack(pickle.loads(pickle.dumps(packed(DATA))))
    assert set(again) == {"a.b", ("c", "d.e"), ("c", "half"), "words"}
    assert again["c", "half"].dtype == torch.bfloat16
    assert bool((TensorDict(again, [2]).exclude("words") == DATA.exclude("words")).all())
    assert again["words"].tolist() == ["open", "open"]


def test_text_differs_by_row_and_keeps_its_shape():
    rows_of = [TensorDict(words=NonTensorData(each)) for each in ("open", 'say "öffne"')]
    together = unpack_stacked([packed(row) for row in rows_of])
    assert together["words"] == ["open", 'say "öffne"']
    taken = [unpack(row) for row in rows(packed(together), 2)]
    assert [each["words"].data for each in taken] == ["open", 'say "öffne"']


def test_what_is_neither_tensor_nor_text_is_refused():
    with pytest.raises(TypeError, match=r"'a' holds .*expected a tensor or text"):
        pack(leaves(TensorDict(a=NonTensorData(object()))))


def test_rows_are_stacked_and_taken_apart():
    items = [packed(DATA[row]) for row in range(2)]
    together = unpack_stacked(items)
    assert together.batch_size == (2,)
    assert bool((together.exclude("words") == DATA.exclude("words")).all())
    for row, item in enumerate(rows(packed(together), 2)):
        again = TensorDict(unpack(pickle.loads(pickle.dumps(item))))
        assert bool((again.exclude("words") == DATA[row].exclude("words")).all())
        assert again["words"] == "open"


TENSORS = {
    "a number": torch.tensor(5),
    "a flag": torch.tensor(True),
    "bfloat16, a number": torch.tensor(0.1).bfloat16(),
    "half": torch.rand(2, 2).half(),
    "empty": torch.zeros(2, 0),
    "every other column": torch.rand(4, 6)[:, ::2],
    "transposed": torch.rand(3, 2).t(),
    "expanded": torch.rand(1, 3).expand(2, 3),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_any_tensor_comes_back_alone_stacked_and_by_row(tensor):
    def sent(data):
        return unpack(pickle.loads(pickle.dumps(data)))["a"]

    item = pack({"a": tensor})
    together = unpack_stacked([item, item])["a"]
    same = [sent(item), *together, *(sent(row) for row in rows(pack({"a": together}), 2))]
    for each in same:
        assert each.dtype == tensor.dtype
        assert each.shape == tensor.shape
        assert torch.equal(each, tensor)


def test_rows_of_other_types_are_promoted_and_of_other_shapes_refused():
    one, two = pack({"a": torch.tensor([1.0])}), pack({"a": torch.tensor([2])})
    assert unpack_stacked([one, two])["a"].tolist() == [[1.0], [2.0]]
    with pytest.raises(RuntimeError, match="equal size"):
        unpack_stacked([pack({"a": torch.arange(3)}), pack({"a": torch.arange(4)})])


@pytest.mark.parametrize("shape", [(), (1, 4), (3, 2)])
def test_an_output_without_a_row_for_each_decision_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"'a' of shape {shape} for 2 decisions")):
        rows(pack({"a": torch.zeros(shape)}), 2)
