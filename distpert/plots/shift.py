"""A heat map of predicted shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_count, check_type
from distpert._shared.symbols import check_known
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.plots.selection import check_moment, control_histograms
from distpert.plots.style import MOMENT_LABELS, axes_or_new
from distpert.predictions.moment_prediction import MomentPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_shift(
    prediction: MomentPrediction,
    moment: str = "mean",
    *,
    genes: str | Sequence[str] | None = None,
    n_genes: int = 30,
    context: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the predicted shift of a moment from the control cells, for perturbations × genes.

    Parameters
    ----------
    prediction : MomentPrediction
        Posterior (`Fit.predict`), prior (`Fit.prior_predictive`), or prediction of a baseline.
    moment : {"mean", "variance", "skewness", "kurtosis"}
        Moment to plot; kurtosis is excess kurtosis.
    genes : str or sequence of str, optional
        Genes to plot, in this order.
    n_genes : int
        Without ``genes``: number of genes to plot. These are the genes with the largest shift under any of the
        perturbations, largest first.
    context : str, optional
        A predicted context; may be left out if there is one.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Predicted median minus the moment of the control cells. The color scale ends at the 90 % quantile over genes of
        the largest absolute shift, because a few large shifts would fade the others. The title has the context.

    Raises
    ------
    KeyError
        If a gene or the context is not predicted.
    ValueError
        If there is no such moment, or ``genes`` is empty.
    TypeError
        If the prediction is conformal, because its intervals are for moments of a number of cells.

    See Also
    --------
    distpert.plots.plot_histogram, distpert.plots.plot_moments

    Examples
    --------
    >>> distpert.plots.plot_shift(fit.predict(fit.perturbations), "variance", context="5")  # doctest: +SKIP
    """
    check_type("prediction", prediction, MomentPrediction, made_by="fit.predict(labels)")
    check_moment(moment)
    context = prediction.one_context(context)
    if genes is not None:
        genes = [genes] if isinstance(genes, str) else list(genes)
    for gene in genes or ():
        check_known(gene, prediction.genes, "genes")
    if genes is None:
        n_genes = check_count("n_genes", n_genes)
    elif not genes:
        raise ValueError("give at least one gene to plot")
    summary = prediction.summary()
    check_moment(moment, [str(name) for name in summary])
    median = summary[moment].sel(statistic="median", drop=True)
    if "context" in median.dims:
        median = median.sel(context=context)
    training = prediction.training
    of_control = histogram_moments(control_histograms(training, context), training.centers.to_numpy())
    shift = median.transpose("perturbation", "gene") - of_control[MOMENTS.index(moment)]
    if genes is None:
        largest = np.argsort(-np.abs(shift.to_numpy()).max(axis=0), kind="stable")[:n_genes]
        genes = [prediction.genes[gene] for gene in largest]
    values = shift.sel(gene=genes).to_numpy()
    largest = np.abs(values).max(axis=0)
    reach = float(np.quantile(largest, 0.9)) or float(largest.max()) or 1.0

    rows, columns = values.shape
    ax = axes_or_new(ax, min(2.5 + 0.2 * columns, 12), np.clip(1.6 + 0.2 * rows, 3.4, 12))
    image = ax.imshow(values, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=f"shift of the {MOMENT_LABELS[moment]}", extend="both", pad=0.02)
    ax.set_xticks(range(columns), genes, rotation=90, fontsize="small")
    ax.set_yticks(range(rows), prediction.perturbations, fontsize="small")
    ax.set(xlabel="gene", ylabel="perturbation")
    if training.context_key:
        ax.set_title(f"{training.context_key} {context}")
    return ax
