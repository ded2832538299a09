"""Add up the histograms of cells that were counted apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distpert._shared.labels import listed

if TYPE_CHECKING:
    import xarray as xr


def add_cells(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Add the cells of two datasets of `distpert.Histograms` with the same bins.

    Parts of the controls are kept side by side. Counts are in the smallest type that holds them.

    Raises
    ------
    ValueError
        If genes, bins, the control or the names of columns differ.
    """
    import xarray as xr

    _check_alike(one, other)
    control = one.attrs["control"]
    groups = [
        (str(label) != control, str(label), str(context))
        for dataset in (one, other)
        for label, context in zip(dataset["perturbation"].to_numpy(), dataset["context"].to_numpy(), strict=True)
    ]
    keys = sorted(set(groups))
    row = np.array([{key: i for i, key in enumerate(keys)}[group] for group in groups])
    rows = row[: one.sizes["group"]], row[one.sizes["group"] :]
    n_cells = np.zeros(len(keys), np.int64)
    for dataset, at in zip((one, other), rows, strict=True):
        n_cells[at] += dataset["n_cells"].to_numpy()
    dtype = np.min_scalar_type(int(n_cells.max()))
    added: dict[str, Any] = {"n_cells": ("group", n_cells)}
    for name in ("counts", "out_of_range"):
        total = np.zeros((len(keys), *one[name].shape[1:]), dtype)
        for dataset, at in zip((one, other), rows, strict=True):
            total[at] += dataset[name].to_numpy().astype(dtype, copy=False)
        added[name] = (one[name].dims, total)
    for name in ("part_counts", "part_n_cells", "part_context"):
        if name in one and name in other:  # files of older versions have no parts
            added[name] = (one[name].dims, np.concatenate([one[name].to_numpy(), other[name].to_numpy()]))
    coords = {
        "perturbation": ("group", np.array([label for _, label, _ in keys])),
        "context": ("group", np.array([context for *_, context in keys])),
        **{name: one[name].variable for name in ("gene", "bin_left", "bin_right")},
    }
    order = [name for name in one.data_vars if name in added]
    return xr.Dataset({name: added[name] for name in order}, coords, one.attrs)


def _check_alike(one: xr.Dataset, other: xr.Dataset) -> None:
    way_out = ". Count both in the same bins: count_histograms(adata, bins=histograms, **histograms.columns)"
    genes, others = one["gene"].to_numpy(), other["gene"].to_numpy()
    if not np.array_equal(genes, others):
        differing = sorted(set(genes.tolist()) ^ set(others.tolist())) or ["their order"]
        raise ValueError(f"the histograms differ in their genes: {listed(differing)}{way_out}")
    edges = [name for name in ("bin_left", "bin_right") if not np.array_equal(one[name], other[name])]
    if edges:
        raise ValueError(f"the histograms have other bins{way_out}")
    differing = sorted(key for key in one.attrs if one.attrs[key] != other.attrs.get(key))
    if differing:
        values = "; ".join(f"{key}: {one.attrs[key]!r} and {other.attrs.get(key)!r}" for key in differing)
        raise ValueError(f"the histograms were read by other names ({values}){way_out}")
