import torch
from torch import nn

from rftf_torchrl import PartFootprint, footprint


def test_parameters_gradients_and_optimizer_state_by_part():
    frozen = nn.Linear(256, 512, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    head = nn.Linear(512, 512, bias=False)
    optimizer = torch.optim.Adam(head.parameters())
    head(torch.ones(512)).sum().backward()
    optimizer.step()
    found = footprint({"tower": frozen, "head": head}, optimizer=optimizer)
    step = 4 / 2**20
    assert found.parts == [
        PartFootprint("tower", 131072, 0, 0.25, 0.0, 0.0),
        PartFootprint("head", 262144, 262144, 1.0, 1.0, 2.0 + step),
    ]
    assert found.peak_mib is None


def test_what_two_parts_share_counts_once():
    shared = nn.Linear(4, 4)
    found = footprint({"policy": nn.Sequential(shared, nn.Linear(4, 2)), "critic": shared})
    assert [part.parameters for part in found.parts] == [30, 0]


def test_buffers_are_memory_and_no_parameters():
    found = footprint({"norm": nn.BatchNorm1d(1024, affine=False)}).parts[0]
    assert found.parameters == 0
    assert found.weights_mib == (2 * 1024 * 4 + 8) / 2**20


def test_the_table():
    table = str(footprint({"head": nn.Linear(1, 1)}, seconds={"collect": 3.0, "update": 1.0}))
    assert table == (
        "| part | parameters | trained | weights | gradients | optimizer |\n"
        "|---|---:|---:|---:|---:|---:|\n"
        "| head | 2 | 2 | 0.0 MiB | 0.0 MiB | 0.0 MiB |\n"
        "\n"
        "| phase | seconds | share |\n"
        "|---|---:|---:|\n"
        "| collect | 3.0 | 75.0% |\n"
        "| update | 1.0 | 25.0% |\n"
        "| sum | 4.0 | 100.0% |"
    )
