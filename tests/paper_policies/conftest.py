"""The specs of GR-MG and Seer, one after the other, for what both must do."""

import pytest


@pytest.fixture(params=["gr_mg", "seer"])
def spec(request):
    pytest.importorskip("transformers")
    from _paper_policies import SPECS

    return SPECS[request.param]
