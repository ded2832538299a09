"""A plot of a statistic of replicated cells and of the observed cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert._shared.labels import canonical_label, listed
from distpert._shared.symbols import check_known
from distpert.evaluation.predictive_checks import posterior_p_value
from distpert.plots.selection import group_name
from distpert.plots.style import CONTROL, OBSERVED, PREDICTED, axes_or_new

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

MOST_BARS = 40  # up to this many values have a bar each


def plot_predictive_check(
    check: xr.Dataset,
    *,
    prior: xr.Dataset | None = None,
    perturbation: str | None = None,
    gene: str | None = None,
    context: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the distribution of a statistic over replicated cells, and its value in the observed cells.

    Parameters
    ----------
    check : Dataset
        As `distpert.predictive_check` returns it.
    prior : Dataset, optional
        The same check of a prior (`Fit.prior_predictive`), drawn behind. Values are not shown if they lie outside the
        range of the posterior's replicates and the observed value by more than three times that range.
    perturbation : str, optional
        A perturbation of the check; may be left out if there is one.
    gene : str, optional
        A gene of the check. By default the mean over genes, for genes with a value in the observed cells and in all
        replicates; the title gives their number.
    context : str, optional
        A context of the check; may be left out if there is one.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Densities, a line at the observed value, and the p-value in the legend. If replicates have few distinct values,
        each has a bar.

    Raises
    ------
    TypeError
        If ``check`` or ``prior`` is not such a table.
    KeyError
        If the perturbation, context or gene is not in the check, or is not named although there are several.
    ValueError
        If the prior is of another statistic, or the observed cells have no value.

    See Also
    --------
    distpert.predictive_check, distpert.statistics

    Examples
    --------
    >>> check = distpert.predictive_check(fit.predict("NANOG"), held_out, "zero_fraction")  # doctest: +SKIP
    >>> distpert.plots.plot_predictive_check(check, gene="SOX2", context="5")  # doctest: +SKIP
    """
    import xarray as xr

    given = {"check": check} if prior is None else {"check": check, "prior": prior}
    for name, table in given.items():
        check_type(name, table, xr.Dataset, made_by="distpert.predictive_check(prediction, adata)")
        if "replicated" not in table:
            raise TypeError(f"{name}: expected what distpert.predictive_check returns, got a table of {listed(table)}")
    check = _one_group(check, perturbation, context)
    if gene is None:
        usable = check["observed"].notnull() & check["replicated"].notnull().all("draw")
        genes = check["gene"].to_numpy()[usable.to_numpy()].tolist()
    else:
        genes = [gene]
        check_known(gene, [str(name) for name in check["gene"].to_numpy()], "genes")
    replicated, value = _mean_over(check, "replicated", genes), _mean_over(check, "observed", genes)
    observed = float(value)
    if not np.isfinite(observed):
        raise ValueError(f"the observed cells have no {check.attrs['statistic']} to plot: they are all in one bin")
    before = None
    if prior is not None:
        if prior.attrs["statistic"] != check.attrs["statistic"]:
            raise ValueError(f"the prior is of the {prior.attrs['statistic']}, not of the {check.attrs['statistic']}")
        before = _mean_over(_one_group(prior, perturbation, context), "replicated", genes)
    ax = axes_or_new(ax)
    p_value = float(posterior_p_value(replicated, value))
    replicated = replicated[np.isfinite(replicated)]
    if before is not None:
        low, high = min([observed, *replicated]), max([observed, *replicated])
        reach = 3 * (high - low) + np.finfo(np.float32).eps
        before = before[np.isfinite(before)]
        shown = before[(before >= low - reach) & (before <= high + reach)]
        _bars(ax, shown, np.histogram_bin_edges(shown, 30), len(before), CONTROL, "prior")
    _bars(ax, replicated, _edges(replicated), len(replicated), PREDICTED, check.attrs["prediction"])
    least = 1 / max(len(replicated), 1)
    ends = {0.0: f"p < {least:.2g}", 1.0: f"p > {1 - least:.4g}"}  # the smallest p-value that the replicates can show
    ax.axvline(observed, color=OBSERVED, lw=1.8, label=f"observed, {ends.get(p_value, f'p = {p_value:.3g}')}")
    label, place = str(check["perturbation"].item()), str(check["context"].item()) if "context" in check.coords else ""
    key = check.attrs["context_key"] if place else None
    title = f"{gene or f'mean of {len(genes)} genes'}: {group_name(label, place, key)}"
    units = check.attrs["units"]
    what = check.attrs["statistic"] + (f" ({units})" if units not in ("", "1") else "")
    ax.set(xlabel=what, ylabel="density", title=title)
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # room for the legend
    ax.legend(framealpha=0.85, edgecolor="none", fontsize="small", loc="best")
    return ax


def _one_group(check: xr.Dataset, perturbation: str | None, context: str | None) -> xr.Dataset:
    """Select the perturbation and, where there are several, the context."""
    if context is not None and "context" not in check.dims:
        raise KeyError(f"the check has no contexts, so {context!r} cannot be chosen")
    if perturbation is not None:
        perturbation = canonical_label(perturbation, check.attrs["control"])
    which = {}
    for dim, name in (("perturbation", perturbation), ("context", context)):
        known = [str(label) for label in check[dim].to_numpy()] if dim in check.dims else []
        if len(known) > 1 and name is None:
            raise KeyError(f"there are several {dim}s, choose one with {dim}=: {', '.join(known)}")
        if name is not None:
            check_known(str(name), known, f"{dim}s")
        if known:
            which[dim] = known[0] if name is None else str(name)
    return check.sel(which)


def _mean_over(check: xr.Dataset, variable: str, genes: list[str]) -> NDArray[np.float64]:
    """Mean over the genes that have a value; NaN if none has."""
    return check[variable].sel(gene=genes).astype(np.float64).mean("gene", skipna=True).to_numpy()


def _bars(
    ax: Axes, values: NDArray[np.float64], edges: NDArray[np.float64], total: int, color: str, label: str
) -> None:
    """Draw the density of values; ``total`` counts also the values that are not shown."""
    density = np.histogram(values, edges)[0] / (max(total, 1) * np.diff(edges))
    ax.stairs(density, edges, fill=True, color=color, alpha=0.5, label=label)
    ax.stairs(density, edges, color=color, lw=0.8)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of bars: around each value if there are few values, otherwise as chosen by numpy."""
    distinct = np.unique(values)
    if len(distinct) == 1:
        return distinct[0] + 0.01 * max(abs(distinct[0]), 1) * np.array([-1, 1])
    if len(distinct):
        gap = np.diff(distinct).min()
        n_bars = round((distinct[-1] - distinct[0]) / gap) + 1
        if n_bars <= MOST_BARS:
            return distinct[0] + gap * (np.arange(n_bars + 1) - 0.5)
    return np.histogram_bin_edges(values, "auto")
