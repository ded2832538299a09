"""Plots of the coverage, transforms and selective risk that `distpert.calibration` measures."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_type
from distpert._shared.labels import listed
from distpert.plots.selection import check_moment
from distpert.plots.style import CONTROL, MOMENT_STYLES, OBSERVED, PREDICTED, axes_or_new

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def plot_coverage(calibration: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Plot the coverage of predictive intervals against their level.

    Parameters
    ----------
    calibration : Dataset
        As `distpert.calibration` or `distpert.combine_calibrations` returns it.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        A line with its 95 % band for each moment. On the dashed diagonal, the prediction is calibrated; below, it is
        over-confident.

    Raises
    ------
    TypeError
        If ``calibration`` is not such a table.

    See Also
    --------
    distpert.calibration, distpert.combine_calibrations, distpert.plots.plot_pit, distpert.plots.plot_strata

    Examples
    --------
    >>> distpert.plots.plot_coverage(distpert.calibration(prediction, held_out))  # doctest: +SKIP
    """
    _check_table(calibration)
    ax = axes_or_new(ax, 3.6, 3.4)
    ax.plot([0, 1], [0, 1], color=CONTROL, ls="--", lw=1, label="calibrated", zorder=0)
    level = calibration["level"].to_numpy()
    for moment in calibration["moment"].to_numpy().tolist():
        color, mark = MOMENT_STYLES[moment]
        value, lower, upper = (
            calibration["coverage" + end].sel(moment=moment).to_numpy() for end in ("", "_lower", "_upper")
        )
        if len(level) > 1:
            ax.fill_between(level, lower, upper, color=color, alpha=0.15, lw=0)
        else:  # one level has no area to fill
            ax.vlines(level, lower, upper, color=color, alpha=0.5, lw=1.2)
        ax.plot(level, value, mark + "-", color=color, ms=4, lw=1.2, label=moment)
    low = max(
        0.0, np.nanmin([level.min(), *(calibration[name].min() for name in ("coverage", "coverage_lower"))]) - 0.05
    )
    ax.set(
        xlabel="level of the interval",
        ylabel="share of moments inside",
        title="coverage",
        xlim=(low, 1),
        ylim=(low, 1.01),
    )
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_pit(calibration: xr.Dataset, moment: str = "mean", *, ax: Axes | None = None) -> Axes:
    """Plot the density of probability integral transforms, with the bands of a calibrated prediction.

    Parameters
    ----------
    calibration : Dataset
        As `distpert.calibration` or `distpert.combine_calibrations` returns it, but not for conformal intervals.
    moment : str
        ``"mean"``, ``"variance"``, ``"skewness"``, ``"kurtosis"``, or ``"cells"`` for single cells.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        Bars with two bands. The filled band covers each bar of a calibrated prediction with probability 95 %, so of 20
        bars one is outside on average; bars outside have another color and are hatched. The two lines are the
        simultaneous band, which covers all bars at once with probability 95 %; the legend has the p-value of a flat
        density. Flat bars mean calibrated, ∪ over-confident, ∩ too wide, a slope biased. A single perturbation has no
        bands.

    Raises
    ------
    TypeError
        If ``calibration`` is not such a table.
    ValueError
        If the moment is unknown, or the table has no transforms of it. Conformal intervals have none, and groups of a
        single cell have none of variance, skewness and kurtosis.

    See Also
    --------
    distpert.calibration, distpert.combine_calibrations, distpert.plots.plot_coverage

    Examples
    --------
    >>> distpert.plots.plot_pit(distpert.calibration(prediction, held_out), "variance")  # doctest: +SKIP
    """
    _check_table(calibration)
    if "pit" not in calibration:
        raise ValueError("the calibration has no transforms: conformal intervals have no distribution to transform by")
    check_moment(moment, [*calibration["moment"].to_numpy().tolist(), "cells"])
    name = "pit_cells" if moment == "cells" else "pit"
    table = calibration if moment == "cells" else calibration.sel(moment=moment)
    value, lower, upper = (table[name + end].to_numpy() for end in ("", "_lower", "_upper"))
    lowest, highest = (table[f"{name}_simultaneous_{end}"].to_numpy() for end in ("lower", "upper"))
    what = "single cells" if moment == "cells" else moment
    if np.isnan(value).all():
        raise ValueError(f"there are no transforms of {what}: each group has a single cell, which has only a mean")
    centers = table["pit_bin"].to_numpy()
    edges = np.linspace(0, 1, len(centers) + 1)

    ax = axes_or_new(ax)
    outside = (value < lower) | (value > upper)
    bars = ax.bar(centers, value, 0.9 / len(centers), color=np.where(outside, OBSERVED, PREDICTED), alpha=0.75)
    for bar, out in zip(bars, outside, strict=True):
        bar.set_hatch("///" if out else "")
    if has_band := not np.isnan(lower).all():
        ax.stairs(upper, edges, baseline=lower, fill=True, color=CONTROL, alpha=0.3, label="95 % band, each bar")
        of_all = f"95 % band, all bars (flat: p = {float(table[f'{name}_p_value']):.2g})"
        for ends, label in ((highest, of_all), (lowest, None)):
            ax.stairs(ends, edges, baseline=None, color=CONTROL, lw=0.9, label=label)
    ax.axhline(1, color=CONTROL, ls="--", lw=1)
    ax.set(xlabel="probability integral transform", ylabel="density", title=what, xlim=(0, 1))
    ax.set_ylim(0, 1.35 * np.nanmax([*value, *highest]))  # room for the legend
    if has_band:
        ax.legend(frameon=False, fontsize="small", loc="upper right", handlelength=1.2)
    return ax


def plot_selective_risk(calibration: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Plot the error of the predictions with the least posterior uncertainty.

    Parameters
    ----------
    calibration : Dataset
        As `distpert.calibration` or `distpert.combine_calibrations` returns it, for a posterior.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        For each share of the perturbations, those with the least spread first, their Cramér distance relative to the
        distance of all, with its 95 % band. Below the dashed line, which is the mean of a random order, the uncertainty
        predicts the error.

    Raises
    ------
    TypeError
        If ``calibration`` is not such a table.
    ValueError
        If the table has no selective risk, because it is of a baseline or of conformal intervals, or because the mean
        Cramér distance is not above 0.

    See Also
    --------
    distpert.calibration, distpert.combine_calibrations, distpert.plots.plot_strata

    Examples
    --------
    >>> distpert.plots.plot_selective_risk(distpert.calibration(prediction, held_out))  # doctest: +SKIP
    """
    _check_table(calibration)
    if "selective_risk" not in calibration:
        raise ValueError(
            "the calibration has no selective risk: only a posterior has a spread to sort perturbations by"
        )
    share = 100 * calibration["share"].to_numpy()
    value, lower, upper = (calibration["selective_risk" + end].to_numpy() for end in ("", "_lower", "_upper"))
    if np.isnan(value).all():
        raise ValueError("there is no selective risk: the mean Cramér distance of all perturbations is not above 0")
    ax = axes_or_new(ax)
    ax.axhline(1, color=CONTROL, ls="--", lw=1, label="random order")
    ax.fill_between(share, lower, upper, color=PREDICTED, alpha=0.15, lw=0)
    band = None if np.isnan(lower).all() else "with 95 % band"
    ax.plot(share, value, "o-", color=PREDICTED, ms=4, lw=1.2, label=band)
    ax.set(xlabel="most certain perturbations (%)", ylabel="relative Cramér distance", title="selective risk")
    ax.set_xlim(0, 102)
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))  # debiased distances can be negative
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def plot_strata(
    calibration: xr.Dataset, stratifier: str = "spread", moment: str = "mean", *, ax: Axes | None = None
) -> Axes:
    """Plot the coverage of predictive intervals in strata of perturbations, or of genes by expression.

    Parameters
    ----------
    calibration : Dataset
        As `distpert.calibration` or `distpert.combine_calibrations` returns it.
    stratifier : {"effect_size", "n_cells", "expression", "distance", "spread"}
        Quantity that is divided into strata.
    moment : str
        ``"mean"``, ``"variance"``, ``"skewness"`` or ``"kurtosis"``.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    Axes
        For each level a dashed line, labeled at the right, and the coverage of each stratum with its 95 % band, at the
        stratum's mean of the stratifier. A calibrated prediction lies on the lines, except for strata of effect size:
        see `distpert.calibration`.

    Raises
    ------
    TypeError
        If ``calibration`` is not such a table.
    ValueError
        If the stratifier or moment is unknown, or the table has no values of the stratifier.

    See Also
    --------
    distpert.calibration, distpert.plots.plot_coverage, distpert.plots.plot_selective_risk

    Examples
    --------
    >>> distpert.plots.plot_strata(distpert.calibration(prediction, held_out), "distance")  # doctest: +SKIP
    """
    _check_table(calibration)
    known = calibration["stratifier"].to_numpy().tolist()
    if stratifier not in known:
        raise ValueError(f"stratifier must be one of {', '.join(known)}, not {stratifier!r}")
    check_moment(moment, calibration["moment"].to_numpy().tolist())
    table = calibration.sel(stratifier=stratifier, moment=moment)
    at = table["mean_by_stratum"].to_numpy()
    if np.isnan(at).all():
        raise ValueError(f"the calibration has no {stratifier} of its perturbations")
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    ax = axes_or_new(ax)
    levels = calibration["level"].to_numpy()
    colors = colormaps["viridis"](np.linspace(0, 0.8, len(levels)))  # colors in order, like levels
    for level, color, mark in zip(levels, colors, cycle("os^DvP"), strict=False):
        value, lower, upper = (
            table["coverage_by_stratum" + end].sel(level=level).to_numpy() for end in ("", "_lower", "_upper")
        )
        ax.axhline(level, color=color, ls="--", lw=1)
        right = ax.get_yaxis_transform()  # x in units of the Axes, y in units of the data
        ax.text(1.02, level, f"{level:g}", transform=right, color=color, va="center", fontsize="small")
        ends = np.maximum([value - lower, upper - value], 0)  # the mean can lie outside the quantiles
        ax.errorbar(at, value, ends, fmt=mark + "-", color=color, ms=4, lw=1.2, capsize=2, label=f"level {level:g}")
    name = "number of cells" if stratifier == "n_cells" else stratifier.replace("_", " ")
    units = calibration[stratifier].attrs["units"]
    ax.set(
        xlabel=name if units in ("1", "cells") else f"{name} ({units})",
        ylabel="share of moments inside",
        title=f"{moment}, by {name}",
        ylim=(None, 1.01),
    )
    ax.xaxis.set_major_locator(MaxNLocator(4))
    return ax


def _check_table(calibration: xr.Dataset) -> None:
    """Refuse anything but a table of calibration."""
    import xarray as xr

    made_by = "distpert.calibration(prediction, adata)"
    check_type("calibration", calibration, xr.Dataset, made_by=made_by)
    if "coverage" not in calibration:
        raise TypeError(f"calibration: expected a table made by {made_by}, got one with {listed(calibration)}")
