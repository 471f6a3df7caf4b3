"""Success rates with intervals, checks of the value model and of language, plots and films."""

from __future__ import annotations

from rftf_torchrl.evaluation.chain_comparison import chain_comparison_table, compare_chains
from rftf_torchrl.evaluation.chain_report import ChainReport
from rftf_torchrl.evaluation.chain_results import ChainResult
from rftf_torchrl.evaluation.chain_seeds import compare_seeds
from rftf_torchrl.evaluation.chains import evaluate_chains
from rftf_torchrl.evaluation.comparison import compare_success, comparison_table
from rftf_torchrl.evaluation.episodes import held_out_episodes, swapped_instructions
from rftf_torchrl.evaluation.exploitation import warn_if_exploited
from rftf_torchrl.evaluation.language import instruction_sensitivity, language_table
from rftf_torchrl.evaluation.overlay import overlay_value
from rftf_torchrl.evaluation.plots import (
    plot_learning_curve,
    plot_success_bars,
    plot_value_over_time,
)
from rftf_torchrl.evaluation.progress_table import write_progress_table
from rftf_torchrl.evaluation.report import markdown_table, phase_table, run_report
from rftf_torchrl.evaluation.rollouts import record_videos, render_rollout
from rftf_torchrl.evaluation.scored_episodes import (
    ScoredEpisode,
    score_demonstrations,
    score_rollouts,
    task_instructions,
)
from rftf_torchrl.evaluation.success import (
    EpisodeOutcome,
    SuccessRate,
    SuccessReport,
    evaluate_success,
    success_report,
)
from rftf_torchrl.evaluation.trajectories import split_trajectories, value_curve
from rftf_torchrl.evaluation.value_curves import (
    exploitation_watch,
    final_value_auc,
    warn_if_blind,
)
from rftf_torchrl.evaluation.value_plots import (
    plot_calibration,
    plot_confusion,
    plot_value_over_progress,
)
from rftf_torchrl.evaluation.value_report import Measure, ValueReport, value_report
from rftf_torchrl.evaluation.value_tables import value_report_tables
from rftf_torchrl.evaluation.video import side_by_side, write_video

__all__ = [
    "ChainReport",
    "ChainResult",
    "EpisodeOutcome",
    "Measure",
    "ScoredEpisode",
    "SuccessRate",
    "SuccessReport",
    "ValueReport",
    "chain_comparison_table",
    "compare_chains",
    "compare_seeds",
    "compare_success",
    "comparison_table",
    "evaluate_chains",
    "evaluate_success",
    "exploitation_watch",
    "final_value_auc",
    "held_out_episodes",
    "instruction_sensitivity",
    "language_table",
    "markdown_table",
    "overlay_value",
    "phase_table",
    "plot_calibration",
    "plot_confusion",
    "plot_learning_curve",
    "plot_success_bars",
    "plot_value_over_progress",
    "plot_value_over_time",
    "record_videos",
    "render_rollout",
    "run_report",
    "score_demonstrations",
    "score_rollouts",
    "side_by_side",
    "split_trajectories",
    "success_report",
    "swapped_instructions",
    "task_instructions",
    "value_curve",
    "value_report",
    "value_report_tables",
    "warn_if_blind",
    "warn_if_exploited",
    "write_progress_table",
    "write_video",
]
