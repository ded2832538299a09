"""From the cells of a screen to histograms of each perturbation and gene."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_type
from distpert._shared.labels import listed
from distpert.histograms.binning import bin_edges, count_bins, gene_ranges
from distpert.histograms.cell_groups import Groups, group_cells
from distpert.histograms.files import FORMAT_VERSION
from distpert.histograms.histograms import Histograms
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import Screen, read_screen

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData


def count_histograms(
    adata: AnnData,
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    context_key: str | None = None,
    layer: str | None = None,
    gene_symbols: str | None = None,
    n_bins: int = 15,
    bins: Histograms | xr.Dataset | None = None,
    progress_bar: bool = False,
) -> Histograms:
    """Count the cells of each perturbation (and context) in each bin of each gene.

    Bins have fixed width and span [min − ε, max + ε], ε = (max − min) / (2 (B − 1)), over all cells that are
    counted, so that the first and last centers are the minimum and maximum [1]_.

    Parameters
    ----------
    adata
        Cells × genes; log1p of counts per 10,000 in ``X`` or in `layer`. Never copied to a dense matrix.
    perturbation_key, control, context_key, layer, gene_symbols
        Where to find what, and the label of control cells: see `distpert.histograms.screen.read_screen`.
    n_bins
        Number of bins B, at least 2; not used with `bins`.
    bins
        Histograms whose bins and genes to use, for held-out cells. Values beyond those bins are counted in
        the end bins and in ``out_of_range``. Held-out cells may come without control cells, and their control
        label may be that of `bins`.
    progress_bar
        Whether to show progress.

    Returns
    -------
    Histograms

    Raises
    ------
    TypeError
        If `adata` is no AnnData, or `bins` are no histograms.
    ValueError
        If `n_bins` is below 2, or the data cannot be used (see `distpert.histograms.screen.read_screen`).
    KeyError
        If genes of `bins` are not in `adata`, or a column or layer is unknown.

    References
    ----------
    .. [1] Ramakrishnan et al. 2025, arXiv:2507.02980.
    """
    import xarray as xr

    if bins is not None:
        check_type("bins", bins, Histograms, xr.Dataset, made_by="distpert.count_histograms(adata)")
    given = bins.dataset if isinstance(bins, Histograms) else bins
    keys = ScreenKeys(
        perturbation_key=perturbation_key,
        control=control,
        context_key=context_key,
        layer=layer,
        gene_symbols=gene_symbols,
    )
    screen = read_screen(adata, keys, fallback_control=None if given is None else given.attrs["control"])
    return count_screen(screen, n_bins=n_bins, bins=given, progress_bar=progress_bar)


def count_screen(
    screen: Screen, *, n_bins: int = 15, bins: xr.Dataset | None = None, progress_bar: bool = False
) -> Histograms:
    """Count a screen that has been read and checked; see `count_histograms`."""
    if bins is None:
        n_bins = check_count("n_bins", n_bins, 2)
    groups = group_cells(screen)
    if single := [label for label in groups.with_one_cell() if label != screen.control]:
        warnings.warn(f"perturbations with fewer than 2 cells: {listed(single)}", UserWarning, stacklevel=3)
    if bins is None:
        genes, columns = screen.genes, None
        edges = bin_edges(*gene_ranges(screen.matrix, groups.of_cell >= 0), n_bins)
    else:
        genes, edges, columns = _bins_of(bins, screen)
    with _progress_bar(screen.matrix) if progress_bar else nullcontext() as bar:
        counts, outside = count_bins(
            screen.matrix,
            groups.of_cell,
            edges,
            columns=columns,
            count_outside=bins is not None,
            progress=bar.update if bar is not None else None,
        )
    attrs = {**screen.keys.to_attrs(), "format_version": FORMAT_VERSION}
    return Histograms(_dataset(groups, genes, edges, counts, outside, attrs))


def _bins_of(dataset: xr.Dataset, screen: Screen) -> tuple[Any, Any, Any]:
    """Genes and edges of some histograms, and the columns of the screen that hold these genes."""
    genes = tuple(dataset["gene"].to_numpy().tolist())
    column = {gene: i for i, gene in enumerate(screen.genes)}
    missing = [gene for gene in genes if gene not in column]
    if missing:
        raise KeyError(f"genes of bins that adata does not have: {listed(missing)}; count both from the same genes")
    edges = np.concatenate([dataset["bin_left"].to_numpy(), dataset["bin_right"].to_numpy()[:, -1:]], axis=1)
    return genes, edges, None if genes == screen.genes else np.array([column[gene] for gene in genes])


def _progress_bar(matrix: Any) -> Any:
    from tqdm.auto import tqdm

    total = matrix.size if isinstance(matrix, np.ndarray) else matrix.nnz
    return tqdm(total=total, desc="counting", unit=" values", unit_scale=True)


def _dataset(
    groups: Groups, genes: tuple[str, ...], edges: NDArray[np.float64], counts: Any, outside: Any, attrs: Any
) -> xr.Dataset:
    import xarray as xr

    return xr.Dataset(
        {
            "counts": (("group", "gene", "bin"), counts),
            "n_cells": ("group", groups.n_cells),
            "out_of_range": (("group", "gene"), outside),
        },
        coords={
            "perturbation": ("group", groups.perturbation),
            "context": ("group", groups.context),
            "gene": np.array(genes),
            "bin_left": (("gene", "bin"), edges[:, :-1].copy()),
            "bin_right": (("gene", "bin"), edges[:, 1:].copy()),
        },
        attrs=attrs,
    )
