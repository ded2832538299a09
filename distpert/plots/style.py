"""Colors, labels and Axes that all plots share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distpert.histograms.moments import EXPRESSION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distinguishable without color vision (Okabe & Ito 2008), and by line and mark.
CONTROL, PREDICTED, OBSERVED = "#555555", "#0072B2", "#D55E00"
MOMENT_STYLES = {
    "mean": ("#0072B2", "o"),
    "variance": ("#D55E00", "s"),
    "skewness": ("#009E73", "^"),
    "kurtosis": ("#CC79A7", "D"),
}
MOMENT_LABELS = {
    "mean": f"mean ({EXPRESSION})",
    "variance": f"variance ({EXPRESSION}²)",
    "skewness": "skewness",
    "kurtosis": "excess kurtosis",
}


def axes_or_new(ax: Axes | None, width: float = 4, height: float = 3) -> Axes:
    """Give the Axes, or those of a new figure of so many inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]
