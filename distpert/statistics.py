"""Statistics of histograms for predictive checks: pure functions of arrays."""

from distpert.histograms.statistics import (
    LABELS,
    STATISTICS,
    Statistic,
    bimodality,
    kurtosis,
    mean,
    skewness,
    variance,
    zero_fraction,
)

__all__ = [
    "LABELS",
    "STATISTICS",
    "Statistic",
    "bimodality",
    "kurtosis",
    "mean",
    "skewness",
    "variance",
    "zero_fraction",
]
