"""Statistics of histograms for predictive checks: pure functions of arrays.

The formulas are in `distpert.histograms.statistics`; this is their public name.
"""

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
