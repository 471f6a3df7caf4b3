import torch
from torch import nn

from rftf_torchrl.envs.shared_weights import share_weights


def test_values_ties_and_flags_stay_and_all_lie_in_one_place():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(3, 2).bfloat16())
    module.register_buffer("empty", torch.zeros(0, 4))
    module.append(nn.Linear(3, 2))
    module[3].weight = module[0].weight
    module[2].requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flags = [parameter.requires_grad for parameter in module.parameters()]
    assert share_weights(module) is module
    after = module.state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert torch.equal(value, before[name]), name
        assert value.dtype == before[name].dtype
    assert module[3].weight is module[0].weight
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    filled = [value for value in after.values() if value.numel()]
    assert len({value.untyped_storage().data_ptr() for value in filled}) == 1
    assert filled[0].is_shared()


def test_it_can_be_written_to():
    module = share_weights(nn.Linear(2, 1))
    module.load_state_dict({"weight": torch.ones(1, 2), "bias": torch.ones(1)})
    assert module(torch.ones(1, 2)).item() == 3.0
