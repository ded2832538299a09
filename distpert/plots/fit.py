"""How a fit went, and how much it follows the embedding."""

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
    fit
        A fitted model.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Negative evidence lower bound, in nats per cell and gene, against the epoch, from 1. The title says how the fit
        ended.
    """
    _check_fit(fit)
    ax = axes_or_new(ax)
    ax.plot(np.arange(1, len(fit.loss) + 1), fit.loss, color=PREDICTED, lw=1.4)
    ended = "ended by its stopping rule" if fit.converged else "ended at the last epoch allowed"
    ax.set(xlabel="epoch", ylabel="loss (nats per cell and gene)", title=ended)
    return ax


def plot_explained_share(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot the share of the variance of the latent response that follows the embedding, factor by factor.

    Parameters
    ----------
    fit
        A fitted model.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A bar for each factor, as wide as the share of all shifts that it brings, widest first; the area of the bars is
        `Fit.explained_share`, the dashed line. The dotted line is `Fit.predictable_share`: what can be told of a
        perturbation left out.
    """
    _check_fit(fit)
    share, weight = fit.parameters["explained_share"].to_numpy(), fit.factor_weight
    order = np.argsort(-weight, kind="stable")
    width = weight[order]
    ax = axes_or_new(ax)
    ax.bar(width.cumsum() - width, share[order], width, align="edge", color=PREDICTED, alpha=0.4, edgecolor=PREDICTED)
    lines = [("follows the embedding", fit.explained_share, "--", CONTROL)]
    lines.append(("can be told when left out", fit.predictable_share, ":", OBSERVED))
    for what, value, dashes, color in lines:
        ax.axhline(value, color=color, ls=dashes, lw=1.6, label=f"{what}: {value:.0%}")
    ax.set(
        xlabel=f"{len(share)} factors, as wide as their share of all shifts",
        ylabel="explained share of variance",
        xlim=(0, 1),
        ylim=(0, 1.3),  # room for the legend
        yticks=np.linspace(0, 1, 6),
    )
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    return ax


def _check_fit(fit: Fit) -> None:
    """Refuse what is no fit, as its predictions are not."""
    from distpert.fitting.fitted import Fit

    check_type("fit", fit, Fit, made_by="distpert.fit(adata, embeddings)")
