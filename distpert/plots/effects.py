"""A volcano plot of effects: how large a shift is, and how sure its sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_count, check_number, check_type
from distpert._shared.symbols import check_known
from distpert.plots.selection import check_moment
from distpert.plots.style import CONTROL, MOMENT_LABELS, OBSERVED, PREDICTED, axes_or_new

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def plot_effects(
    effects: xr.Dataset,
    moment: str = "mean",
    *,
    perturbation: str | None = None,
    context: str | None = None,
    lfsr: float = 0.05,
    n_labels: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Plot the shift of each gene against its local false sign rate.

    Parameters
    ----------
    effects : Dataset
        From `Prediction.effects`.
    moment : {"mean", "variance", "skewness", "kurtosis"}
        Moment to plot; kurtosis is excess kurtosis.
    perturbation, context : str, optional
        Which one to plot; may be left out if there is one.
    lfsr : float
        Genes with a local false sign rate below this are colored: raised or lowered.
    n_labels : int
        Largest number of genes to name: colored ones with the largest shifts whose names do not overlap.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        The median shift, with its interval for colored genes, and the local false sign rate on a logarithmic axis,
        smallest on top. The title has the perturbation, the number of colored genes, and how many of their signs are
        expected to be wrong.

    Raises
    ------
    TypeError
        If ``effects`` is not a Dataset.
    ValueError
        If there is no such moment, it was not made by `Prediction.effects`, or ``lfsr`` is not between 0 and 1.
    KeyError
        If the perturbation or the context is unknown, or there are several and none is named.

    See Also
    --------
    distpert.Prediction.effects

    Examples
    --------
    >>> distpert.plots.plot_effects(prediction.effects(), "variance", perturbation="NANOG")  # doctest: +SKIP
    """
    import xarray as xr

    check_type("effects", effects, xr.Dataset, made_by="prediction.effects()")
    check_moment(moment)
    if missing := {"shift", "lower", "upper", "lfsr"} - set(effects):
        raise ValueError(f"effects have no {sorted(missing)[0]!r}: pass the Dataset that prediction.effects() returns")
    lfsr, n_labels = check_number("lfsr", lfsr, above=0, below=1), check_count("n_labels", n_labels, 0)
    title = []
    for dim, name in (("perturbation", perturbation), ("context", context)):
        if dim not in effects.dims:
            continue
        known = effects[dim].to_numpy().tolist()
        if name is None and len(known) > 1:
            raise KeyError(f"there are several {dim}s, choose one with {dim}=: {', '.join(known[:10])}")
        name = known[0] if name is None else name
        check_known(name, known, f"{dim}s")
        effects = effects.sel({dim: name})
        title.append(name)
    one = effects.sel(moment=moment)
    shift, lower, upper, rate = (one[name].to_numpy() for name in ("shift", "lower", "upper", "lfsr"))
    called = rate < lfsr
    ax = axes_or_new(ax, 5, 4)
    ax.scatter(shift[~called], rate[~called], s=8, color=CONTROL, alpha=0.4, lw=0)
    for chosen, color, what in (
        (called & (shift > 0), OBSERVED, "raised"),
        (called & (shift <= 0), PREDICTED, "lowered"),
    ):
        reach = np.stack([shift - lower, upper - shift])[:, chosen]
        ax.errorbar(
            shift[chosen], rate[chosen], xerr=np.maximum(reach, 0), fmt="o", ms=4, lw=0.6, color=color,
            label=f"{what}: {chosen.sum()}",
        )  # fmt: skip
    ax.axvline(0, color=CONTROL, lw=0.8)
    ax.axhline(lfsr, color=CONTROL, lw=0.8, ls=":")
    ax.set_yscale("log")
    ax.invert_yaxis()
    label = MOMENT_LABELS[moment].replace(moment if moment != "kurtosis" else "excess kurtosis", "", 1).strip()
    shown = "excess kurtosis" if moment == "kurtosis" else moment
    wrong = f"{called.sum()} genes called, {rate[called].sum():.1f} wrong signs expected"
    ax.set(xlabel=f"shift of the {shown} {label}".strip(), ylabel="local false sign rate")
    ax.set_title("\n".join([", ".join(title), wrong]) if title else wrong, fontsize="medium")
    ax.margins(x=0.12, y=0.15)
    _name_genes(ax, one["gene"].to_numpy(), shift, rate, np.flatnonzero(called), n_labels)
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def _name_genes(ax: Axes, genes: NDArray, shift: NDArray, rate: NDArray, called: NDArray, n_labels: int) -> None:
    """Name the genes with the largest shifts, as far as their names have room."""
    taken: list[NDArray] = []
    for i in called[np.argsort(-np.abs(shift[called]), kind="stable")]:
        if len(taken) == n_labels:
            break
        at = ax.transAxes.inverted().transform(ax.transData.transform((shift[i], rate[i])))
        if any(abs(at[0] - x) < 0.05 and abs(at[1] - y) < 0.1 for x, y in taken):
            continue
        taken.append(at)
        ax.annotate(
            str(genes[i]),
            (shift[i], rate[i]),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize="x-small",
            rotation=50,
            ha="left",
            va="bottom",
            rotation_mode="anchor",
        )
