"""Plot of what each source of embeddings predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_type
from distpert.plots.style import CONTROL, PREDICTED, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from distpert.fitting.fitted import Fit


def plot_relevance(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot what each source of embeddings predicts, alone and together.

    Parameters
    ----------
    fit : Fit
        A fitted model.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        R² of responses left out, for each source and all together, with 90 % intervals. The labels have the weight of
        each source in the kernel.

    Raises
    ------
    TypeError
        If ``fit`` is not a `distpert.Fit`.

    See Also
    --------
    distpert.Fit.relevance

    Examples
    --------
    >>> distpert.plots.plot_relevance(distpert.fit(adata, distpert.datasets.gene_embeddings()))  # doctest: +SKIP
    """
    from distpert.fitting.fitted import Fit

    check_type("fit", fit, Fit, made_by="distpert.fit(adata, embeddings)")
    table = fit.relevance
    predicted = table.dropna(subset="r2")
    ax = axes_or_new(ax, 5, 1.2 + 0.35 * len(predicted))
    rows = np.arange(len(predicted))[::-1]
    colors = [CONTROL if name == predicted.index[-1] else PREDICTED for name in predicted.index]
    ax.axvline(0, color="#bbbbbb", lw=0.8, zorder=0)
    ax.hlines(rows, predicted["r2_lower"], predicted["r2_upper"], colors=colors, lw=1.6)
    ax.scatter(predicted["r2"], rows, c=colors, s=28, zorder=3)
    labels = [
        name if name == predicted.index[-1] else f"{name} (weight {weight:.2f})"
        for name, weight in predicted["weight"].items()
    ]
    ax.set_yticks(rows, labels)
    ax.set(xlabel="R² of responses left out", ylim=(-0.6, len(rows) - 0.4))
    return ax
