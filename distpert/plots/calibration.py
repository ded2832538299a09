"""Coverage and probability integral transforms, as `distpert.calibration` finds them."""

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
    """Plot how often intervals hold against how often they should.

    Parameters
    ----------
    calibration
        As `distpert.calibration` or `distpert.combine_calibrations` returns it.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A line with its 95 % band for each moment. On the dashed diagonal: calibrated; below: over-confident.
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
        else:  # there is nothing to fill between
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
    """Plot the density of probability integral transforms with the bands in which a calibrated prediction's lies.

    Parameters
    ----------
    calibration
        As `distpert.calibration` or `distpert.combine_calibrations` returns it, not of conformal intervals.
    moment
        Of which moment, or ``"cells"`` for single cells.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Bars; filled, the 95 % band of each by itself, with bars outside it in another color and hatched; between two
        lines, the simultaneous band, and in the legend the p-value of a flat density. Flat: calibrated; ∪:
        over-confident; ∩: too wide; a slope: biased. Of 20 bars of a calibrated prediction one is outside the filled
        band on average, while all are between the lines with probability 95 %. One perturbation has no bands.

    Raises
    ------
    ValueError
        If the table has no transforms, or not of this moment, which groups of a single cell do not have.
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
        raise ValueError(f"there are no transforms of {what}: each group has a single cell, which has but a mean")
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
    """Plot how good the predictions are that a posterior is surest of.

    Parameters
    ----------
    calibration
        As `distpert.calibration` or `distpert.combine_calibrations` returns it, of a posterior.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        The Cramér distance of each share of the perturbations, those with the least spread first, relative to that of
        all, with its 95 % band. Below the dashed line: it knows which of its predictions are good.

    Raises
    ------
    ValueError
        If the table has no selective risk, being of a baseline or of conformal intervals, or its mean Cramér distance
        is not above 0.
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
    ax.axhline(1, color=CONTROL, ls="--", lw=1, label="knows nothing of it")
    ax.fill_between(share, lower, upper, color=PREDICTED, alpha=0.15, lw=0)
    band = None if np.isnan(lower).all() else "with 95 % band"
    ax.plot(share, value, "o-", color=PREDICTED, ms=4, lw=1.2, label=band)
    ax.set(xlabel="surest perturbations (%)", ylabel="Cramér distance, relative", title="selective risk", xlim=(0, 102))
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))  # debiased distances can be negative
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def plot_strata(
    calibration: xr.Dataset, stratifier: str = "spread", moment: str = "mean", *, ax: Axes | None = None
) -> Axes:
    """Plot how often intervals hold in strata of perturbations, or for expression of genes.

    Parameters
    ----------
    calibration
        As `distpert.calibration` or `distpert.combine_calibrations` returns it.
    stratifier
        What is divided into strata: ``"effect_size"``, ``"n_cells"``, ``"expression"``, ``"distance"``, ``"spread"``.
    moment
        Of which moment.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        For each level, a dashed line at it, with the level to the right, and the coverage of each stratum with its 95 %
        band, at the mean of what is stratified by. A calibrated prediction is on its line, except by effect size: see
        `distpert.calibration`.

    Raises
    ------
    ValueError
        If the stratifier or moment is unknown, or nothing is known to stratify by.
    """
    _check_table(calibration)
    known = calibration["stratifier"].to_numpy().tolist()
    if stratifier not in known:
        raise ValueError(f"stratifier must be one of {', '.join(known)}, not {stratifier!r}")
    check_moment(moment, calibration["moment"].to_numpy().tolist())
    table = calibration.sel(stratifier=stratifier, moment=moment)
    at = table["mean_by_stratum"].to_numpy()
    if np.isnan(at).all():
        raise ValueError(f"the calibration knows no {stratifier} of its perturbations")
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    ax = axes_or_new(ax)
    levels = calibration["level"].to_numpy()
    colors = colormaps["viridis"](np.linspace(0, 0.8, len(levels)))  # in order, as levels are
    for level, color, mark in zip(levels, colors, cycle("os^DvP"), strict=False):
        value, lower, upper = (
            table["coverage_by_stratum" + end].sel(level=level).to_numpy() for end in ("", "_lower", "_upper")
        )
        ax.axhline(level, color=color, ls="--", lw=1)
        right = ax.get_yaxis_transform()  # levels as data, the edge of the Axes as 1
        ax.text(1.02, level, f"{level:g}", transform=right, color=color, va="center", fontsize="small")
        ends = np.maximum([value - lower, upper - value], 0)  # a quantile can end short of the mean
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
    """Refuse what is no table of calibration, as a prediction is not."""
    import xarray as xr

    made_by = "distpert.calibration(prediction, adata)"
    check_type("calibration", calibration, xr.Dataset, made_by=made_by)
    if "coverage" not in calibration:
        raise TypeError(f"calibration: expected a table made by {made_by}, got one with {listed(calibration)}")
