"""A plot of the predicted histogram of one gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distpert._shared.symbols import check_known
from distpert.histograms.moments import EXPRESSION
from distpert.histograms.observed import observed_cells
from distpert.plots.selection import control_histograms, group_name
from distpert.plots.style import CONTROL, OBSERVED, PREDICTED, axes_or_new
from distpert.predictions.histogram_prediction import HistogramPrediction, check_histograms

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

    from distpert.histograms.histograms import Histograms


def plot_histogram(
    prediction: HistogramPrediction,
    perturbation: str,
    gene: str,
    *,
    context: str | None = None,
    observed: AnnData | Histograms | None = None,
    ci_prob: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """Plot the histogram of a gene under a perturbation: predicted, in control cells, and observed.

    Parameters
    ----------
    prediction : HistogramPrediction
        Posterior (`Fit.predict`), prior (`Fit.prior_predictive`), or prediction of a baseline with histograms.
    perturbation : str
        A predicted perturbation.
    gene : str
        A predicted gene.
    context : str, optional
        A predicted context; may be left out if there is one.
    observed : AnnData or Histograms, optional
        Observed cells, or their histograms in the bins of the training. The band is then the predictive interval for as
        many cells. Without them, the band of a baseline has no width.
    ci_prob : float
        Probability of the band, bin by bin.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Bin probability against expression. The title has the gene and the group. Bins without a cell in any group are
        not part of the lines.

    Raises
    ------
    KeyError
        If the perturbation, gene or context is not predicted.
    ValueError
        If the method predicts means only.
    TypeError
        If the prediction has no histograms.

    See Also
    --------
    distpert.plots.plot_moments, distpert.plots.plot_shift

    Examples
    --------
    >>> prediction = fit.predict("NANOG")  # doctest: +SKIP
    >>> distpert.plots.plot_histogram(prediction, "NANOG", "SOX2", context="5", observed=held_out)  # doctest: +SKIP
    """
    check_histograms(prediction)
    check_known(gene, prediction.genes, "genes")
    one = prediction.select(perturbation, context)
    training = one.training
    counts = None
    if observed is not None:
        cells = observed_cells(training, observed, one.perturbations, one.contexts)
        counts = cells["counts"].sel(gene=gene).to_numpy().reshape(-1)
    n_cells = None if counts is None else int(counts.sum())
    interval = one.histogram_interval(ci_prob, n_cells=n_cells).sel(gene=gene)
    lower, upper = (interval.sel(statistic=name).to_numpy().reshape(-1) for name in ("lower", "upper"))
    predicted = one.histogram().sel(gene=gene).to_numpy().reshape(-1)
    position = training.genes.index(gene)
    control = control_histograms(training, one.contexts[0])[position]
    x = training.centers.to_numpy()[position]
    # Values from small counts leave bins without any cell; a line through their zeros would look like a comb.
    shown = training.counts.to_numpy()[:, position].sum(axis=0) > 0
    if counts is not None:
        shown |= counts > 0

    ax = axes_or_new(ax)
    title = f"{gene}: {group_name(one.perturbations[0], one.contexts[0], training.context_key)}"
    what = "of probability" if counts is None else f"for {n_cells} cells"
    band = f", {ci_prob:.0%} band {what}" if (upper > lower).any() else ""  # a single histogram has a band of no width
    ax.fill_between(x[shown], lower[shown], upper[shown], color=PREDICTED, alpha=0.25, lw=0)
    ax.plot(x[shown], control[shown], color=CONTROL, ls="--", lw=1.2, label="control")
    ax.plot(x[shown], predicted[shown], color=PREDICTED, lw=1.6, label=f"predicted{band}")
    if counts is not None:
        ax.plot(x[shown], counts[shown] / n_cells, "o", color=OBSERVED, ms=4, label=f"observed ({n_cells} cells)")
    ax.set(xlabel=EXPRESSION, ylabel="share of cells", title=title)
    ax.set_ylim(0, 1.45 * ax.get_ylim()[1])  # room for the legend
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    return ax
