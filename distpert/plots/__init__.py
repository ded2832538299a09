"""Plots of fits, predictions and calibration. Each takes an Axes and returns it."""

from distpert.plots.calibration import plot_coverage, plot_pit, plot_selective_risk, plot_strata
from distpert.plots.effects import plot_effects
from distpert.plots.fit import plot_explained_share, plot_loss
from distpert.plots.histogram import plot_histogram
from distpert.plots.moments import plot_moments
from distpert.plots.predictive_check import plot_predictive_check
from distpert.plots.ranking import plot_ranking
from distpert.plots.relevance import plot_relevance
from distpert.plots.shift import plot_shift

__all__ = [
    "plot_coverage",
    "plot_effects",
    "plot_explained_share",
    "plot_histogram",
    "plot_loss",
    "plot_moments",
    "plot_pit",
    "plot_predictive_check",
    "plot_ranking",
    "plot_relevance",
    "plot_selective_risk",
    "plot_shift",
    "plot_strata",
]
