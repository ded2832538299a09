"""Plots of a fit: its loss, and the share of variance that embeddings explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_type
from distpert.plots.style import CONTROL, OBSERVED, PREDICTED, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from distpert.fitting.fitted import Fit


def plot_loss(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot the loss of each epoch.

    Parameters
    ----------
    fit : Fit
        A fitted model.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Negative evidence lower bound, in nats per cell and gene, against the epoch, from 1. The title says why the fit
        ended.

    Raises
    ------
    TypeError
        If ``fit`` is not a `distpert.Fit`.

    See Also
    --------
    distpert.fit, distpert.Optimization, distpert.plots.plot_explained_share

    Examples
    --------
    >>> distpert.plots.plot_loss(distpert.fit(adata, embeddings))  # doctest: +SKIP
    """
    _check_fit(fit)
    ax = axes_or_new(ax)
    ax.plot(np.arange(1, len(fit.loss) + 1), fit.loss, color=PREDICTED, lw=1.4)
    ended = "ended by the stopping rule" if fit.converged else "ended at the last epoch allowed"
    ax.set(xlabel="epoch", ylabel="loss (nats per cell and gene)", title=ended)
    return ax


def plot_explained_share(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot the share of latent variance that follows the embedding, for each factor.

    Parameters
    ----------
    fit : Fit
        A fitted model.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        A bar for each factor, with its share of all shifts as the width, widest first. The dashed line is
        `Fit.explained_share`. Dotted lines are the R² of responses that are left out (`Fit.left_out_r2`).

    Raises
    ------
    TypeError
        If ``fit`` is not a `distpert.Fit`.

    See Also
    --------
    distpert.fit, distpert.Fit, distpert.plots.plot_loss

    Examples
    --------
    >>> distpert.plots.plot_explained_share(distpert.fit(adata, embeddings))  # doctest: +SKIP
    """
    _check_fit(fit)
    share, weight = fit.parameters["explained_share"].to_numpy(), fit.factor_weight
    order = np.argsort(-weight, kind="stable")
    width = weight[order]
    ax = axes_or_new(ax)
    ax.bar(width.cumsum() - width, share[order], width, align="edge", color=PREDICTED, alpha=0.4, edgecolor=PREDICTED)
    lines = [("explained by the embedding", fit.explained_share, "--", CONTROL)]
    lines += [(f"R² left out, {what}", value, ":", OBSERVED) for what, value in fit.left_out_r2().items()]
    for what, value, dashes, color in lines:
        ax.axhline(value, color=color, ls=dashes, lw=1.6, label=f"{what}: {value:.0%}")
    ax.set(
        xlabel=f"{len(share)} factors, width: share of all shifts",
        ylabel="explained share of variance",
        xlim=(0, 1),
        ylim=(0, 1.3),  # room for the legend
        yticks=np.linspace(0, 1, 6),
    )
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    return ax


def _check_fit(fit: Fit) -> None:
    """Refuse anything but a fit."""
    from distpert.fitting.fitted import Fit

    check_type("fit", fit, Fit, made_by="distpert.fit(adata, embeddings)")
