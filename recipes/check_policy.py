"""Compare a policy's actions with the inference of the library that it comes from.

    python recipes/check_policy.py policy=lerobot policy.pretrained=my-checkpoint
    python recipes/check_policy.py policy=smolvlm env.image_size=224
    python recipes/check_policy.py policy.path=outputs/run/rftf/policy.safetensors

Makes random observations and prints the largest difference between the two, and what both were
given: statistics, sizes of images, the prompt. A policy's file is exported first (``export.py``)
and loaded by its own library. Ends with exit code 1 beyond ``check.bound``. Writes nothing.
"""

from __future__ import annotations

import sys
from itertools import cycle, islice
from typing import Any

from rftf_torchrl import (
    NativeComparison,
    RunConfig,
    compare_with_native,
    export_policy,
    load_policy,
    make_simulator,
    recipe,
)
from rftf_torchrl.configs.policies import new_policy
from rftf_torchrl.leftovers import temporary_folder
from rftf_torchrl.policies.spec import spec_class


def check_policy(config: RunConfig) -> NativeComparison:
    """Compare the run's policy.

    Raises:
        ValueError: where there is no policy, or it comes from no other library.
    """
    settings, loaded = config.policy, None
    if settings.path is not None:
        loaded = load_policy(settings.path, kind=settings.kind)
    kind: Any = spec_class(settings.kind) if loaded is None else type(loaded[1])
    given = loaded is not None or settings.pretrained is not None
    if given and not hasattr(kind, "compare_with_native"):
        raise ValueError(
            f"a policy of the kind {kind.kind!r} comes from no other library, so there is no "
            "inference to compare with"
        )
    tasks = make_simulator(config.env).tasks
    sentences = (tasks[name].instruction for name in config.env.tasks)
    asked = list(islice(cycle(sentences), config.check.observations))
    with temporary_folder() as folder:
        if loaded is not None:
            policy, spec = loaded
            source = str(folder / "exported")
            export_policy(policy, spec, source, source=settings.pretrained)
        elif settings.pretrained is not None:
            policy, spec = new_policy(config, state_dim=1, action_dim=1)
            source = settings.pretrained
        else:
            raise ValueError(
                "there is nothing to check: give policy.pretrained=<folder or hub id>, or "
                "policy.path=<file>"
            )
        return compare_with_native(policy, spec, source, asked, image_size=config.env.image_size)


@recipe()
def main(config: RunConfig) -> None:
    found = check_policy(config)
    print(found.table())
    if not found.largest <= config.check.bound:
        print(f"check_policy: the difference is above check.bound={config.check.bound:g}")
        sys.exit(1)


if __name__ == "__main__":
    main()
