"""Scores of predicted histograms against the cells of a perturbation: pure functions of arrays.

The formulas are in `distpert.evaluation.scores`; this is their public name.
"""

from distpert.evaluation.scores import (
    cramer,
    crps,
    negative_log_density,
    negative_log_likelihood,
    pearson_shift,
    relative_absolute_error,
    split_counts,
    wasserstein,
    wasserstein_floor,
)

__all__ = [
    "cramer",
    "crps",
    "negative_log_density",
    "negative_log_likelihood",
    "pearson_shift",
    "relative_absolute_error",
    "split_counts",
    "wasserstein",
    "wasserstein_floor",
]
