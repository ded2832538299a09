"""The table of a calibration: averages over groups, with bands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert.evaluation.resampling import Band, flatness, mean_over_groups, quantile_strata, selective_risk
from distpert.histograms.moments import EXPRESSION

if TYPE_CHECKING:
    import xarray as xr

STRATIFIERS = ("effect_size", "n_cells", "expression", "distance", "spread")
SHARES = np.arange(1, 11) / 10
POOLED = ("coverage", "width", "interval_score", "pit", "pit_cells")
BY_PERTURBATION = "_by_perturbation"
_BAND = "95 %, pointwise, or simultaneous where the name says so, from resampling perturbations"
# long_name and units; the moments differ in their units.
_ABOUT = {
    "coverage": ("share of observations in central predictive intervals", "1"),
    "width": ("mean width of central predictive intervals", "units of the moment"),
    "interval_score": ("mean interval score", "units of the moment"),
    "pit": ("density of the probability integral transform of moments of the observed cells", "1"),
    "pit_simultaneous": ("density of the transform of moments, all bars at once", "1"),
    "pit_p_value": ("p-value of flatness of the density of the transform of moments", "1"),
    "pit_cells": ("density of the probability integral transform of single cells", "1"),
    "pit_cells_simultaneous": ("density of the transform of single cells, all bars at once", "1"),
    "pit_cells_p_value": ("p-value of flatness of the density of the transform of single cells", "1"),
    "coverage_by_expression": ("coverage of genes by their mean expression in controls", "1"),
    "coverage_by_stratum": ("coverage by stratum", "1"),
    "n_perturbations_by_stratum": ("perturbations with groups in the stratum", "perturbations"),
    "mean_by_stratum": ("mean of the stratifier", "units of the stratifier"),
    "selective_risk": ("Cramér distance of the perturbations with the least spread, relative to all", "1"),
    "n_cells": ("held-out cells", "cells"),
    "expression": ("mean expression in controls, over the genes of each stratum", EXPRESSION),
    "effect_size": ("Cramér distance, debiased, of held-out cells from controls", EXPRESSION),
    "distance": ("distance from the embedding of the nearest training perturbation", "1"),
    "spread": ("mean width of 50 % posterior intervals of the mean", EXPRESSION),
    "cramer": ("Cramér distance, debiased", EXPRESSION),
}

_Variables: TypeAlias = dict[str, tuple[tuple[str, ...], NDArray]]


def pool_groups(groups: xr.Dataset, n_resamples: int, seed: int) -> xr.Dataset:
    """Add averages over groups to the values of groups (…, perturbation, [context]).

    Groups without cells do not count. The variables are described in `distpert.evaluation.reliability.calibration`.
    """
    pool = _Pool(groups, n_resamples, seed)
    pooled = _averages(pool) | _strata(pool)
    coords: dict[str, object] = {"stratifier": list(STRATIFIERS)}
    if "spread" in groups:
        pooled |= _selective_risk(pool)
        coords["share"] = SHARES
    table = groups.assign(pooled).assign_coords(coords)[[*pooled, *groups]]
    for variable in table.values():
        variable.attrs = _attributes(str(variable.name))
    return table.assign_attrs(band=_BAND, n_resamples=n_resamples, seed=seed)


def width_at_coverage(calibration: xr.Dataset, coverage: float | Sequence[float] = (0.8, 0.9)) -> xr.DataArray:
    """Mean width of intervals at equal coverage, to compare the sharpness of methods with different calibration.

    Parameters
    ----------
    calibration : Dataset
        As `calibration` or `combine_calibrations` returns it. More levels make the result more exact.
    coverage : float or sequence of float
        Share or shares of observations that the intervals cover.

    Returns
    -------
    DataArray
        (moment, coverage) widths in the units of the moments, linear between levels. If several levels have the same
        coverage, the smallest width counts. NaN where the intervals of a moment reach the coverage at none of the
        levels, or exceed it at all levels.

    Raises
    ------
    TypeError
        If ``calibration`` is not such a table.
    ValueError
        If a coverage is not between 0 and 1, or is lower than every coverage in the table. In the latter case, pass
        lower ``levels`` to `calibration`.

    See Also
    --------
    distpert.calibration, distpert.combine_calibrations

    Examples
    --------
    >>> table = distpert.calibration(prediction, held_out, levels=[0.5, 0.8, 0.9, 0.95])  # doctest: +SKIP
    >>> distpert.width_at_coverage(table, 0.9).to_series()  # doctest: +SKIP
    """
    import xarray as xr

    check_type("calibration", calibration, xr.Dataset, made_by="distpert.calibration")
    asked = np.atleast_1d(np.asarray(coverage, np.float64))
    if asked.ndim != 1 or not ((asked > 0) & (asked < 1)).all():
        raise ValueError(f"coverage must be numbers between 0 and 1, not {coverage}")
    held, width = (calibration[name].transpose("moment", "level").to_numpy() for name in ("coverage", "width"))
    if (below := asked[asked < held.min()]).size:
        raise ValueError(
            f"coverage {below[0]:g} is below the coverages of the table, {held.min():.3g} to {held.max():.3g}. Choose "
            "one in this range, or pass lower levels= to calibration"
        )
    found = [np.interp(asked, *row, left=np.nan, right=np.nan) for row in zip(held, width, strict=True)]
    for of_held, of_width, at in zip(held, width, found, strict=True):
        levels, first = np.unique(of_held, return_index=True)
        exactly = np.isin(asked, levels)  # several levels may have the same coverage: np.interp takes the widest
        at[exactly] = of_width[first[np.searchsorted(levels, asked[exactly])]]
    coords = {"moment": calibration["moment"].to_numpy(), "coverage": asked}
    attrs = {"long_name": "mean width of intervals with this coverage", "units": "units of the moment"}
    return xr.DataArray(np.stack(found), coords, ("moment", "coverage"), "width", attrs)


class _Pool:
    """Values of groups as arrays (…, group), and their averages."""

    def __init__(self, groups: xr.Dataset, n_resamples: int, seed: int) -> None:
        self.groups, self.n_resamples, self.seed = groups, n_resamples, seed
        self._dims = tuple(name for name in ("perturbation", "context") if name in groups.dims)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Whether a group has cells."""
        return self.values("n_cells") > 0

    @cached_property
    def unit(self) -> NDArray[np.int64]:
        """Number of the perturbation of each group, the same for the same label."""
        _, unit = np.unique(self.groups["perturbation"].to_numpy(), return_inverse=True)
        return np.repeat(unit, len(self.present) // len(unit))

    def lead(self, name: str) -> tuple[str, ...]:
        """Dimensions of a variable before those of the groups."""
        return tuple(str(dim) for dim in self.groups[name].dims if dim not in self._dims)

    def values(self, name: str) -> NDArray[np.float64]:
        """Return a variable as (…, group)."""
        array = self.groups[name].broadcast_like(self.groups["n_cells"]).transpose(..., *self._dims)
        return array.to_numpy().astype(np.float64).reshape(*array.shape[: -len(self._dims)], -1)

    def mean(self, values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Band:
        """Average over chosen groups that have a value. A group of one cell has a mean, but no other moment."""
        rows = values.reshape(-1, values.shape[-1])
        counted, of_row = np.unique(chosen & ~np.isnan(rows), axis=0, return_inverse=True)
        ends = np.empty((3, len(rows)))
        for i, groups in enumerate(counted):
            alike = of_row.ravel() == i
            ends[:, alike] = mean_over_groups(rows[alike], groups, self.unit, self.n_resamples, self.seed)
        return Band(*ends.reshape(3, *values.shape[:-1]))

    def flatness(self, density: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Test densities (…, bar, group) for flatness: ends of the simultaneous band (…, bar), and p-value (…)."""
        found = [
            flatness(bars, self.present & ~np.isnan(bars).any(axis=0), self.unit, self.n_resamples, self.seed)
            for bars in density.reshape(-1, *density.shape[-2:])
        ]
        lower, upper, p_value = (np.array(part) for part in zip(*found, strict=True))
        shape = density.shape[:-1]
        return lower.reshape(shape), upper.reshape(shape), p_value.reshape(shape[:-1])


def _averages(pool: _Pool) -> _Variables:
    averages: _Variables = {}
    for name in POOLED:
        if (by_group := name + BY_PERTURBATION) not in pool.groups:
            continue
        values, lead = pool.values(by_group), pool.lead(by_group)
        band = pool.mean(values, pool.present)
        if not name.startswith("pit"):
            averages |= _with_band(name, lead, band)
            continue
        band = Band(band.value, *(np.maximum(end - band.value + 1, 0) for end in band[1:]))
        lower, upper, p_value = pool.flatness(values)
        averages |= _with_band(name, lead, band) | {
            f"{name}_simultaneous_lower": (lead, lower),
            f"{name}_simultaneous_upper": (lead, upper),
            f"{name}_p_value": (lead[:-1], p_value),
        }
    return averages


def _strata(pool: _Pool) -> _Variables:
    """Coverage in strata of groups, and in strata of genes by their expression."""
    n_strata, coverage = pool.groups.sizes["stratum"], pool.values("coverage" + BY_PERTURBATION)
    by_expression, expression = pool.values("coverage_by_expression"), pool.values("expression")
    bands, means, numbers = [], [], []
    for name in STRATIFIERS:
        of_groups = name != "expression"
        if of_groups:
            value = pool.values(name) if name in pool.groups else np.full(len(pool.present), np.nan)
            stratum = quantile_strata(np.where(pool.present, value, np.nan), n_strata)
        for s in range(n_strata):
            if of_groups:
                chosen, covered = stratum == s, coverage
            else:
                value, chosen, covered = expression[s], ~np.isnan(expression[s]), by_expression[..., s, :]
            bands.append(pool.mean(covered, chosen))
            means.append(value[chosen].mean() if chosen.any() else np.nan)
            numbers.append(len(np.unique(pool.unit[chosen])))
    dims, shape = ("stratifier", "stratum"), (len(STRATIFIERS), n_strata)
    stacked = Band(*(np.stack(ends).reshape(*shape, *ends[0].shape) for ends in zip(*bands, strict=True)))
    return {
        **_with_band("coverage_by_stratum", (*dims, *pool.lead("coverage" + BY_PERTURBATION)), stacked),
        "mean_by_stratum": (dims, np.reshape(means, shape)),
        "n_perturbations_by_stratum": (dims, np.reshape(numbers, shape)),
    }


def _selective_risk(pool: _Pool) -> _Variables:
    """Compute the selective risk over perturbations; the groups of each are averaged first."""
    known = ~np.isnan(pool.values("cramer"))
    _, unit = np.unique(pool.unit[known], return_inverse=True)
    size = np.bincount(unit)
    spread, risk = (np.bincount(unit, pool.values(name)[known]) / size for name in ("spread", "cramer"))
    if len(risk) and risk.mean() <= 0:
        warnings.warn(
            f"no selective risk: the mean Cramér distance of all perturbations is {risk.mean():.2g}, not above 0, and "
            "no ratio to it can be taken. More cells or perturbations separate errors from the sampling of cells",
            UserWarning,
            stacklevel=4,
        )
    band = selective_risk(spread, risk, SHARES, pool.n_resamples, pool.seed)
    return _with_band("selective_risk", ("share",), band)


def _with_band(name: str, dims: tuple[str, ...], band: Band) -> _Variables:
    return {name + end: (dims, value) for end, value in zip(("", "_lower", "_upper"), band, strict=True)}


def _attributes(name: str) -> dict[str, str]:
    end = next((end for end in ("_lower", "_upper") if name.endswith(end)), "")
    long_name, units = _ABOUT[name.removesuffix(end).removesuffix(BY_PERTURBATION)]
    what = {"": "", "_lower": ", lower end of the band", "_upper": ", upper end of the band"}[end]
    return {"long_name": long_name + what, "units": units}
