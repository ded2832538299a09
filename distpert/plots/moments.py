"""A plot of predicted against observed moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_type
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.histograms.observed import observed_cells
from distpert.plots.selection import check_moment, group_name
from distpert.plots.style import CONTROL, MOMENT_LABELS, OBSERVED, PREDICTED, axes_or_new
from distpert.predictions.base import BasePrediction
from distpert.predictions.point import MeanPrediction

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from distpert.histograms.histograms import Histograms


def plot_moments(
    prediction: BasePrediction,
    adata: AnnData | Histograms,
    perturbation: str,
    *,
    moment: str = "mean",
    context: str | None = None,
    ci_prob: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """Plot a moment of each gene under a perturbation, predicted against observed, with predictive intervals.

    Parameters
    ----------
    prediction : BasePrediction
        Posterior (`Fit.predict`), prior (`Fit.prior_predictive`), prediction of a baseline with histograms, or
        conformal prediction.
    adata : AnnData or Histograms
        Cells of the perturbation, or their histograms in the bins of the training.
    perturbation : str
        A predicted perturbation.
    moment : {"mean", "variance", "skewness", "kurtosis"}
        Moment to plot; kurtosis is excess kurtosis.
    context : str, optional
        A predicted context; may be left out if there is one.
    ci_prob : float
        Probability of the intervals, gene by gene, for as many cells as were observed.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Predictive median and interval of each gene against the observed moment, in another color and shape where the
        interval does not cover it. Genes with all cells in one bin have no skewness and kurtosis; they are not shown
        for these two, and the legend gives their number.

    Raises
    ------
    TypeError
        If ``prediction`` is not a prediction.
    KeyError
        If the perturbation or context is not predicted.
    ValueError
        If there is no such moment, there are no cells, or the method predicts means only, without intervals.

    See Also
    --------
    distpert.conformalize, distpert.plots.plot_histogram, distpert.plots.plot_shift

    Examples
    --------
    >>> prediction = fit.predict("NANOG", context="5")  # doctest: +SKIP
    >>> distpert.plots.plot_moments(prediction, held_out, "NANOG", moment="variance")  # doctest: +SKIP
    """
    check_type("prediction", prediction, BasePrediction, made_by="fit.predict(labels)")
    check_moment(moment)
    if isinstance(prediction, MeanPrediction):
        raise ValueError(
            "this method predicts means alone, without intervals to plot. Make some with distpert.conformalize"
        )
    one = prediction.select(perturbation, context)
    cells = observed_cells(one.training, adata, one.perturbations, one.contexts)
    counts = cells["counts"].to_numpy().reshape(len(one.genes), -1)
    n_cells = int(counts[0].sum())
    moments = histogram_moments(counts / n_cells, one.centers)
    summary = one.summary(ci_prob, n_cells=n_cells)
    check_moment(moment, [str(name) for name in summary])
    shown = moments[1] > 0 if moment in MOMENTS[2:] else np.ones(len(one.genes), bool)
    observed = moments[MOMENTS.index(moment)][shown]
    median, lower, upper = (
        summary[moment].sel(statistic=name).to_numpy().reshape(-1)[shown] for name in ("median", "lower", "upper")
    )
    # Predictions are in single precision, so exact moments of cells in one bin need some slack.
    slack = 1e-5 * (1 + np.abs(observed))
    inside = (lower - slack <= observed) & (observed <= upper + slack)

    ax = axes_or_new(ax, 3.6, 3.4)
    for chosen, color, mark, what in [(inside, PREDICTED, "o", "covers"), (~inside, OBSERVED, "D", "misses")]:
        x, ends = observed[chosen], (lower[chosen], upper[chosen])
        label = f"{ci_prob:.0%} interval {what}: {chosen.sum()} genes"
        ax.vlines(x, *ends, color=color, alpha=0.35, lw=1)
        ax.plot(x, median[chosen], mark, color=color, ms=4, label=label)
    reach = [*observed, *median]
    if reach:
        ax.plot([min(reach), max(reach)], [min(reach), max(reach)], color=CONTROL, ls="--", lw=1, zorder=0)
    if left_out := int((~shown).sum()):
        ax.plot([], [], " ", label=f"no {moment}: {left_out} genes")
    name, group = MOMENT_LABELS[moment], group_name(one.perturbations[0], one.contexts[0], one.training.context_key)
    ax.set(xlabel=f"observed {name}", ylabel=f"predicted {name}", title=f"{group} ({n_cells} cells)")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax
