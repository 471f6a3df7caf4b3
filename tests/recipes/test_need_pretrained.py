"""A pretrained model that is nowhere is named before a run begins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from rftf_torchrl import ConfigError, RunConfig
from rftf_torchrl.configs import artefacts
from rftf_torchrl.configs.artefacts import need_pretrained
from rftf_torchrl.policies.small_vla import PolicySpec

ON_DISK = f"{__name__}:OnDisk"


@dataclass(frozen=True)
class OnDisk(PolicySpec):
    kind: ClassVar[str] = ON_DISK
    pretrained_on: ClassVar[str] = "disk"


def nowhere(source, file):
    raise OSError(f"{source} has no {file}")


@pytest.fixture(autouse=True)
def empty_hub(monkeypatch):
    hub = SimpleNamespace(hf_hub_download=nowhere)
    monkeypatch.setattr(artefacts, "optional_module", lambda *_: hub)


def test_a_policy_of_ones_own_says_where_its_weights_lie(tmp_path):
    config = RunConfig(output=str(tmp_path))
    config.policy.kind, config.policy.pretrained = ON_DISK, str(tmp_path / "weights.pt")
    message = f"policy.pretrained={tmp_path / 'weights.pt'}: there is no such file or folder"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        need_pretrained(config)
    need_pretrained(config, policy=False)
    (tmp_path / "weights.pt").touch()
    need_pretrained(config)


@pytest.mark.parametrize(("kind", "option"), [("pretrained", "image_tower"), ("lerobot", "path")])
def test_a_value_models_weights_are_looked_for_too(tmp_path, kind, option):
    config = RunConfig(output=str(tmp_path))
    config.value.kind, config.value.options = kind, {option: "nobody/model"}
    message = f"value.options.{option}=nobody/model: there is no such folder, and it is not on the"
    with pytest.raises(ConfigError, match=re.escape(message)):
        need_pretrained(config)
    config.value.options = {option: str(tmp_path)}
    need_pretrained(config)
