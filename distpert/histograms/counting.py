"""Count the cells of a screen into histograms for each perturbation and gene."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_type
from distpert._shared.labels import listed
from distpert.histograms.binning import bin_edges, count_bins
from distpert.histograms.cell_groups import Groups, group_cells
from distpert.histograms.control_parts import ControlParts, split_controls
from distpert.histograms.files import FORMAT_VERSION
from distpert.histograms.histograms import Histograms
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.opening import ScreenSource
from distpert.histograms.progress import counting_bar
from distpert.histograms.screen import Screen, read_screen

if TYPE_CHECKING:
    import xarray as xr


def count_histograms(
    adata: ScreenSource,
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

    The B bins of a gene have equal width and span [min − ε, max + ε], with ε = (max − min) / (2 (B − 1)) and minimum
    and maximum over all counted cells. The first and last bin centers are this minimum and maximum [1]_.

    Parameters
    ----------
    adata : AnnData, path, or list of these
        Cells × genes; log1p of counts per 10,000 in ``X`` or in `layer`. A sparse matrix is not made dense. An AnnData
        may be backed or lazy (``anndata.experimental.read_lazy``), and its matrix a Dask array with dense or sparse
        blocks. A path is that of an h5ad file or a zarr store. Cells that are not in memory are read in two passes,
        for ranges and for counts, in parts of a few tens of megabytes.
    perturbation_key : str
        Column of ``adata.obs`` with the labels ``A``, ``A+B``, ``A+ctrl`` or the control label. Cells without a label
        are left out.
    control : str
        Label of the control cells. One of the usual labels (``control``, ``ctrl``, ``non-targeting``, upper or lower
        case) also stands for another one of them, if that is the only one in the data.
    context_key : str, optional
        Column of ``adata.obs`` with a context such as day, batch or cell line.
    layer : str, optional
        Layer to read instead of ``X``.
    gene_symbols : str, optional
        Column of ``adata.var`` with gene symbols, where ``var_names`` are something else.
    n_bins : int
        Number of bins B, at least 2. Ignored with `bins`.
    bins : Histograms or Dataset, optional
        Histograms with the bins and genes to use, for held-out cells. Values beyond these bins are counted in the end
        bins and in ``out_of_range``. Control cells may be absent. The control label may also be the one of `bins`.
    progress_bar : bool
        Whether to show progress.

    Returns
    -------
    Histograms

    Raises
    ------
    TypeError
        If `adata` is something else, `bins` are not histograms, the control is not one label, or the matrix has another
        layout.
    FileNotFoundError
        If there is no such file.
    ValueError
        If `n_bins` is below 2, there are no control cells, a context has none, values are negative or not finite, or
        labels, contexts or gene symbols are malformed.
    KeyError
        If a column or layer is unknown, or genes of `bins` are not in `adata`.

    Warns
    -----
    UserWarning
        For cells without a label, labels that look like those of control or unassigned cells, a single control cell in
        a context, perturbations with fewer than 2 cells, and values that do not look like log1p of normalized counts.

    See Also
    --------
    distpert.fit, distpert.load_histograms

    References
    ----------
    .. [1] Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> histograms = distpert.count_histograms(adata, context_key="day")  # doctest: +SKIP
    >>> held_out = distpert.count_histograms(other, bins=histograms, **histograms.columns)  # doctest: +SKIP
    >>> whole = distpert.count_histograms(["lane1.h5ad", "lane2.h5ad"], progress_bar=True)  # doctest: +SKIP
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
    fallback = None if given is None else given.attrs["control"]
    screen = read_screen(adata, keys, fallback_control=fallback, progress_bar=progress_bar)
    return count_screen(screen, n_bins=n_bins, bins=given, progress_bar=progress_bar)


def count_screen(
    screen: Screen, *, n_bins: int = 15, bins: xr.Dataset | None = None, progress_bar: bool = False
) -> Histograms:
    """Count a screen that has been read and checked, as `count_histograms` does."""
    if bins is None:
        n_bins = check_count("n_bins", n_bins, 2)
    groups = group_cells(screen)
    if single := [label for label in groups.with_one_cell() if label != screen.control]:
        warnings.warn(f"perturbations with fewer than 2 cells: {listed(single)}", UserWarning, stacklevel=3)
    if bins is None:
        genes, columns = screen.genes, None
        edges = bin_edges(*screen.ranges, n_bins)
    else:
        genes, edges, columns = _bins_of(bins, screen)
    parts = split_controls(groups, screen)
    with counting_bar(screen.matrix, "counting", progress_bar) as advance:
        counts, outside = count_bins(
            screen.matrix,
            parts.of_cell,
            edges,
            columns=columns,
            count_outside=bins is not None,
            largest=int(groups.n_cells.max()),
            progress=advance,
        )
    attrs = {**screen.keys.to_attrs(), "format_version": FORMAT_VERSION}
    return Histograms(_dataset(groups, parts, genes, edges, counts, outside, attrs))


def _bins_of(dataset: xr.Dataset, screen: Screen) -> tuple[Any, Any, Any]:
    """Return genes and edges of histograms, and the columns of the screen for these genes."""
    genes = tuple(dataset["gene"].to_numpy().tolist())
    column = {gene: i for i, gene in enumerate(screen.genes)}
    missing = [gene for gene in genes if gene not in column]
    if missing:
        raise KeyError(f"adata does not have these genes of bins: {listed(missing)}. Count both with the same genes")
    edges = np.concatenate([dataset["bin_left"].to_numpy(), dataset["bin_right"].to_numpy()[:, -1:]], axis=1)
    return genes, edges, None if genes == screen.genes else np.array([column[gene] for gene in genes])


def _dataset(
    groups: Groups,
    parts: ControlParts,
    genes: tuple[str, ...],
    edges: NDArray[np.float64],
    counts: NDArray[np.unsignedinteger],
    outside: NDArray[np.unsignedinteger],
    attrs: Any,
) -> xr.Dataset:
    """Name the counts of groups and of parts, given those of the groups and then of the parts."""
    import xarray as xr

    of_parts = counts[len(groups.n_cells) :].astype(np.min_scalar_type(int(parts.n_cells.max(initial=0))))
    return xr.Dataset(
        {
            "counts": (("group", "gene", "bin"), parts.add_up(counts)),
            "n_cells": ("group", groups.n_cells),
            "out_of_range": (("group", "gene"), parts.add_up(outside)),
            "part_counts": (("part", "gene", "bin"), of_parts),
            "part_n_cells": ("part", parts.n_cells),
            "part_context": ("part", groups.context[parts.group]),
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
