"""A heat map of predicted shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distpert.plots.selection import check_known, check_moment, chosen_context
from distpert.plots.style import MOMENT_LABELS, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from distpert.prediction import Prediction


def plot_shift(
    prediction: Prediction,
    moment: str = "mean",
    *,
    genes: Sequence[str] | None = None,
    num_genes: int = 30,
    context: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot how far a moment is predicted to shift from that of the control cells, perturbations × genes.

    Parameters
    ----------
    prediction
        What was predicted.
    moment
        ``"mean"``, ``"variance"``, ``"skewness"`` or ``"kurtosis"`` (excess).
    genes
        Which genes, in the order wanted.
    num_genes
        Without ``genes``: how many, those with the largest shift under any of the perturbations, largest first.
    context
        Which of the contexts; may be left out if there is one.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Posterior median minus the moment of the control cells. Colours end at the 99 % quantile of absolute shifts
        shown, so that a few large ones do not fade the others.

    Raises
    ------
    KeyError
        If a gene or the context is none of those predicted.
    ValueError
        If there is no such moment, or no gene is asked for.
    """
    check_moment(moment)
    context = chosen_context(prediction, context)
    for gene in genes or ():
        check_known(gene, prediction.genes, "genes")
    if (num_genes if genes is None else len(genes)) < 1:
        raise ValueError("give at least one gene to plot")
    median = prediction.summary()[moment].sel(statistic="median", drop=True)
    shift = median - prediction.fit.control_moments()[moment]
    if "context" in shift.dims:
        shift = shift.sel(context=context)
    if genes is None:
        largest = np.argsort(-np.abs(shift.transpose("perturbation", "gene").to_numpy()).max(axis=0), kind="stable")[
            :num_genes
        ]
        genes = [prediction.genes[gene] for gene in largest]
    values = shift.sel(gene=list(genes)).transpose("perturbation", "gene").to_numpy()
    reach = float(np.quantile(np.abs(values), 0.99)) or 1.0

    rows, columns = values.shape
    ax = axes_or_new(ax, min(2.5 + 0.2 * columns, 12), min(1.6 + 0.2 * rows, 12))
    image = ax.imshow(values, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=f"shift of the {MOMENT_LABELS[moment]}", extend="both", pad=0.02)
    ax.set_xticks(range(columns), genes, rotation=90, fontsize="small")
    ax.set_yticks(range(rows), prediction.perturbations, fontsize="small")
    ax.set(xlabel="gene", ylabel="perturbation")
    return ax
