"""Pure tensor maths: no TensorDict, no modules, no files."""

from __future__ import annotations

from rftf_torchrl.functional.aggregates import (
    interquartile_mean,
    probability_of_improvement,
    steps_to_level,
)
from rftf_torchrl.functional.balance import (
    OutcomePools,
    find_mixed_trajectory,
    outcome_pools,
    pairs_per_task,
    spread_evenly,
    walk_pool,
)
from rftf_torchrl.functional.flow import flow_matching_error, flow_sde_transition
from rftf_torchrl.functional.intervals import newcombe_interval, wilson_interval
from rftf_torchrl.functional.metrics import (
    kendall_tau,
    pairwise_accuracy,
    roc_auc,
    value_order_correlation,
)
from rftf_torchrl.functional.paired import paired_difference_interval
from rftf_torchrl.functional.poses import (
    euler_to_matrix,
    matrix_to_euler,
    tool_to_world,
    world_to_tool,
)
from rftf_torchrl.functional.progress import (
    calibration_curve,
    calibration_error,
    negative_step_share,
)
from rftf_torchrl.functional.ranking import temporal_ranking_loss
from rftf_torchrl.functional.resampling import bootstrap_counts, percentile_interval
from rftf_torchrl.functional.shaping import potential_shaping
from rftf_torchrl.functional.surrogate import surrogate_gain

__all__ = [
    "OutcomePools",
    "bootstrap_counts",
    "calibration_curve",
    "calibration_error",
    "euler_to_matrix",
    "find_mixed_trajectory",
    "flow_matching_error",
    "flow_sde_transition",
    "interquartile_mean",
    "kendall_tau",
    "matrix_to_euler",
    "negative_step_share",
    "newcombe_interval",
    "outcome_pools",
    "paired_difference_interval",
    "pairs_per_task",
    "pairwise_accuracy",
    "percentile_interval",
    "potential_shaping",
    "probability_of_improvement",
    "roc_auc",
    "spread_evenly",
    "steps_to_level",
    "surrogate_gain",
    "temporal_ranking_loss",
    "tool_to_world",
    "value_order_correlation",
    "walk_pool",
    "wilson_interval",
    "world_to_tool",
]
