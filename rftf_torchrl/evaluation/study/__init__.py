"""Studies: many runs of several methods as cells, their statistics and their report.

The intervals need SciPy: ``pip install 'rftf-torchrl[study]'``.
"""

from __future__ import annotations

from rftf_torchrl.evaluation.study.cell import (
    Cell,
    CellError,
    CurvePoint,
    cell_file,
    load_cell,
    save_cell,
)
from rftf_torchrl.evaluation.study.collection import Cells, check_finished_cells, load_cells
from rftf_torchrl.evaluation.study.curves import (
    Band,
    LevelSteps,
    curve_band,
    level_steps,
    mean_over_training,
)
from rftf_torchrl.evaluation.study.figure import plot_study_curves
from rftf_torchrl.evaluation.study.intervals import (
    Difference,
    Interval,
    bootstrap_interval,
    paired_difference,
)
from rftf_torchrl.evaluation.study.report import write_study_report
from rftf_torchrl.evaluation.study.summary import MethodSummary, overall_success, summarise

__all__ = [
    "Band",
    "Cell",
    "CellError",
    "Cells",
    "CurvePoint",
    "Difference",
    "Interval",
    "LevelSteps",
    "MethodSummary",
    "bootstrap_interval",
    "cell_file",
    "check_finished_cells",
    "curve_band",
    "level_steps",
    "load_cell",
    "load_cells",
    "mean_over_training",
    "overall_success",
    "paired_difference",
    "plot_study_curves",
    "save_cell",
    "summarise",
    "write_study_report",
]
