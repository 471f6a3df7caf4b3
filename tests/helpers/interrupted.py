"""A fine-tuning run that is killed in its second update and continued."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file


def interrupted_and_resumed(config, cloned, folder, monkeypatch):
    """Weights at the end of the run of `config`, from the policy in the file `cloned`."""
    from rftf_torchrl.recipes import finetune as recipe

    broken = replace(
        config,
        output=str(folder),
        policy=replace(config.policy, path=str(cloned)),
        value=replace(config.value, path=f"{config.output}/value/value.safetensors"),
    )
    update = recipe.update

    def killed(config, loss_module, optimizer, data, iteration, **kwargs):
        if iteration == 1:
            raise KeyboardInterrupt
        return update(config, loss_module, optimizer, data, iteration, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            recipe.finetune(broken)
    return load_file(recipe.finetune(replace(broken, resume=True))["policy"])
