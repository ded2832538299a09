"""Colors, labels and Axes that all plots share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distpert.histograms.moments import EXPRESSION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colors that color-blind readers can distinguish (Okabe & Ito 2008); lines and marks differ too.
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
    """Return the Axes, or those of a new figure with this size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]
