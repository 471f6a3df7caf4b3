"""CALVIN from one command: the quick start with its configuration, judged by chains of five tasks.

    python recipes/calvin.py                                   # D->D from the simulator's state
    python recipes/calvin.py env.options.demo_scenes=ABC       # ABC->D
    python recipes/calvin.py env=calvin device=cuda            # from pixels
    python recipes/calvin.py --config-name calvin_pixels       # from pixels, for a CPU
    python recipes/calvin.py baseline=sparse                   # and plain PPO, for comparison
    python recipes/calvin.py resume=true                       # after a kill

Needs calvin_env, see the README. Everything goes to ``outputs/calvin/seed<seed>``: ``report.md``,
``results.json``, the chains of every policy, curves, and the files of the single recipes.
"""

from __future__ import annotations

from rftf_torchrl import PeakMemory, RunConfig, recipe
from rftf_torchrl.recipes.quickstart import quickstart


@recipe("calvin")
def main(config: RunConfig) -> None:
    with PeakMemory() as memory:
        quickstart(config, memory)


if __name__ == "__main__":
    main()
