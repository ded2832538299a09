"""Results of blocks as one array, with named dimensions and units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distpert.histograms.histograms import Histograms
from distpert.predictions.blocks import Block, Result

if TYPE_CHECKING:
    import xarray as xr


class Blocks(Protocol):
    """Perturbations × contexts × genes, in blocks; every prediction has these attributes."""

    @property
    def training(self) -> Histograms:
        """The training counts, with their bins and genes."""

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Labels of the perturbations."""

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts."""

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes."""

    def map_blocks(self, function: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        """Apply a function to each block."""


def collect(
    prediction: Blocks,
    function: Callable[[Block], NDArray],
    tail: tuple[int, ...],
    *,
    draws: bool = False,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Collect results (gene, …) or (draw, gene, …) of blocks in one array ([draw,] perturbation, context, gene, …)."""
    shape = (len(prediction.perturbations), len(prediction.contexts), len(prediction.genes))
    lead = (slice(None),) if draws else ()
    out = np.empty(0, dtype)
    for block, values in prediction.map_blocks(function):
        if not out.size:
            out = np.empty((*values.shape[: len(lead)], *shape, *tail), dtype)
        out[(*lead, block.perturbation, block.context, block.genes)] = values
    return out


def labeled(prediction: Blocks, values: NDArray, tail: tuple[str, ...] = (), *, draws: bool = False) -> xr.DataArray:
    """Name the dimensions of an array from `collect`; no context dimension if the training has no context key."""
    import xarray as xr

    dims = (*(["draw"] if draws else []), "perturbation", "context", "gene", *tail)
    coords: dict[str, Any] = {
        "perturbation": list(prediction.perturbations),
        "context": list(prediction.contexts),
        "gene": list(prediction.genes),
    }
    if draws:
        coords["draw"] = np.arange(len(values))
    array = xr.DataArray(values, dims=dims, coords=coords)
    return array if prediction.training.context_key else array.isel(context=0, drop=True)


def with_bins(prediction: Blocks, array: xr.DataArray) -> xr.DataArray:
    """Attach the edges of the bins to an array of probabilities, and its name and units."""
    array = array.assign_coords(prediction.training.dataset[["bin_left", "bin_right"]].coords)
    return array.assign_attrs(long_name="probability of the bin", units="1")
