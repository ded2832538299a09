"""Scores of predicted histograms against observed cells: pure functions of arrays."""

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
