"""What every recipe does before its first line of work."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from rftf_torchrl.configs.schema import RunConfig
from rftf_torchrl.configs.validation import check_config
from rftf_torchrl.files import prepare_output, write_text


def start_run(raw: DictConfig, recipe: str) -> RunConfig:
    """Check the configuration, make the output folder and keep the configuration there.

    Args:
        raw: what Hydra composed.
        recipe: the recipe's name; the configuration goes to ``<output>/<recipe>.yaml``.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: listing every setting that is missing or out of its range.
        OSError: when the output folder can't be written.

    Example:
        >>> import tempfile
        >>> from omegaconf import OmegaConf
        >>> raw = OmegaConf.structured(RunConfig(output=tempfile.mkdtemp()))
        >>> raw.env.tasks = ["drawer-open"]
        >>> config = start_run(raw, "finetune")
        >>> OmegaConf.load(f"{config.output}/finetune.yaml").env.tasks
        ['drawer-open']
    """
    config = check_config(raw)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = prepare_output(config.output)
    write_text(Path(folder, f"{recipe}.yaml"), OmegaConf.to_yaml(raw, resolve=True))
    return config
