"""Write a policy in the format that it came from, for the library that it came from.

    python recipes/export.py policy.path=outputs/run/rftf/policy.safetensors output=exported
    python recipes/export.py policy=seer policy.path=... policy.pretrained=seer output=exported

``output`` is a new folder that ``from_pretrained`` of ``transformers`` or LeRobot reads: weights
with low-rank adapters merged, configuration, tokenizer and processors. For GR-MG and Seer it has
the files of their authors again, of which ``policy.pretrained`` names the released ones.
"""

from __future__ import annotations

import logging

from rftf_torchrl import RunConfig, export_policy, load_policy, recipe

logger = logging.getLogger("export")


def export(config: RunConfig) -> None:
    """Export the policy of ``policy.path``.

    Raises:
        ValueError: where there is no policy, or it comes from no other library.
        FileExistsError: where the folder exists.
    """
    if config.policy.path is None:
        raise ValueError("there is nothing to export: give policy.path=<file>")
    policy, spec = load_policy(config.policy.path, kind=config.policy.kind)
    export_policy(policy, spec, config.output, source=config.policy.pretrained)
    logger.info("%s: exported to %s", config.policy.path, config.output)


@recipe()
def main(config: RunConfig) -> None:
    export(config)


if __name__ == "__main__":
    main()
