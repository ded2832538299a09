"""Plot of a ranking of perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_count, check_type
from distpert.plots.style import CONTROL, PREDICTED, axes_or_new
from distpert.predictions.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_ranking(ranking: Ranking, *, n: int = 25, ax: Axes | None = None) -> Axes:
    """Plot the first perturbations of a ranking, with their intervals.

    Parameters
    ----------
    ranking : Ranking
        From `distpert.Fit.rank`.
    n : int
        Number of perturbations to show.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Medians with intervals, by whether a perturbation is in training. The numbers are probabilities to be among the
        first ``ranking.top``.

    Raises
    ------
    TypeError
        If ``ranking`` is not a `distpert.Ranking`.
    ValueError
        If ``n`` is not a whole number above 0.

    See Also
    --------
    distpert.Fit.rank

    Examples
    --------
    >>> distpert.plots.plot_ranking(fit.rank(), n=15)  # doctest: +SKIP
    """
    check_type("ranking", ranking, Ranking, made_by="fit.rank()")
    table = ranking.table.head(check_count("n", n))
    ax = axes_or_new(ax, 5.5, 1.2 + 0.24 * len(table))
    rows = np.arange(len(table))[::-1]
    for seen, color, label in ((True, CONTROL, "in training"), (False, PREDICTED, "not in training")):
        chosen = (table["seen"] == seen).to_numpy()
        if not chosen.any():
            continue
        values = table[chosen]
        ends = values[f"{ranking.by}_lower"], values[f"{ranking.by}_upper"]
        ax.hlines(rows[chosen], *ends, color=color, lw=1.6, label=f"{label}, {ranking.ci_prob:.0%} interval")
        ax.scatter(values[ranking.by], rows[chosen], color=color, s=22, zorder=3)
    for row, probability in zip(rows, table["prob_top"], strict=True):
        place = ax.get_yaxis_transform()
        ax.text(1.01, row, f"{probability:.2f}", transform=place, fontsize="x-small", va="center")
    ax.text(1.01, len(rows) - 0.3, f"P(first {ranking.top})", transform=ax.get_yaxis_transform(), fontsize="x-small")
    ax.set_yticks(rows, table.index, fontsize="small")
    of_effect = "effect (shift of the mean, in standard deviations)"
    ax.set_xlabel(of_effect if ranking.by == "effect" else f"similarity to {ranking.target}")
    ax.set_ylim(-2.6, len(rows) - 0.4)  # with room for the legend
    if ranking.by == "effect":
        ax.set_xlim(left=0)
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax
