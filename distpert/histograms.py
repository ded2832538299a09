"""Counted histograms: all that the model sees of a screen."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert.arguments import check_type
from distpert.counting import bin_edges, count_bins, gene_ranges
from distpert.groups import Groups, group_cells
from distpert.histogram_files import FORMAT_VERSION, read_histograms, write_histograms
from distpert.labels import canonical_label, listed
from distpert.screen import Screen, read_screen

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData


@dataclass(frozen=True, eq=False, repr=False)
class Histograms:
    """Counts of cells in fixed-width bins, for each group of cells and each gene.

    A group is the cells that share a perturbation and a context. Control groups come first, then the others
    sorted by perturbation and context.

    Attributes
    ----------
    dataset
        ``counts`` (group, gene, bin), ``n_cells`` (group) and ``out_of_range`` (group, gene), the number of
        values that lie beyond the bins and are counted in the end bins. Coordinates ``perturbation`` and
        ``context`` (group), ``gene``, ``bin_left`` and ``bin_right`` (gene, bin) in units of the data.
        Attributes ``control``, ``context_key`` (empty if there is none), ``format_version``, and the names by which the
        cells were read.
    """

    dataset: xr.Dataset

    @property
    def counts(self) -> xr.DataArray:
        """Number of cells (group, gene, bin)."""
        return self.dataset["counts"]

    @property
    def n_cells(self) -> xr.DataArray:
        """Number of cells (group)."""
        return self.dataset["n_cells"]

    @property
    def genes(self) -> tuple[str, ...]:
        """Gene symbols, in the order of the data."""
        return tuple(self.dataset["gene"].to_numpy().tolist())

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Sorted labels of the perturbations, without the control."""
        return tuple(sorted(set(self.dataset["perturbation"].to_numpy().tolist()) - {self.control}))

    @property
    def contexts(self) -> tuple[str, ...]:
        """Sorted contexts; ``("all",)`` where there is no context key."""
        return tuple(sorted(set(self.dataset["context"].to_numpy().tolist())))

    @property
    def control(self) -> str:
        """Label of the control cells."""
        return str(self.dataset.attrs["control"])

    @property
    def context_key(self) -> str | None:
        """Column of the data that holds the context, None if there is none."""
        return str(self.dataset.attrs["context_key"]) or None

    @property
    def columns(self) -> dict[str, Any]:
        """Arguments of `count_histograms` that read other cells of the same screen."""
        names = ("perturbation_key", "layer", "gene_symbols")
        found = {name: str(self.dataset.attrs.get(name, "")) or None for name in names}
        found["perturbation_key"] = found["perturbation_key"] or "perturbation"
        return {**found, "control": self.control, "context_key": self.context_key}

    @property
    def constant_genes(self) -> tuple[str, ...]:
        """Genes with the same value in all cells: their bins have width 0, and bin 0 has all the cells."""
        return tuple(self.dataset["gene"].to_numpy()[self.widths.to_numpy() == 0].tolist())

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return int(self.dataset.sizes["bin"])

    @property
    def centers(self) -> xr.DataArray:
        """Bin centres (gene, bin): the first and last are the range of the gene."""
        centers = (self.dataset["bin_left"] + self.dataset["bin_right"]) / 2
        return centers.drop_vars(["bin_left", "bin_right"]).rename("centers")

    @property
    def widths(self) -> xr.DataArray:
        """Bin widths (gene)."""
        left, right = (self.dataset[name].reset_coords(drop=True) for name in ("bin_left", "bin_right"))
        return ((right.isel(bin=-1) - left.isel(bin=0)) / self.n_bins).rename("widths")

    def select(self, perturbations: Iterable[str]) -> Histograms:
        """Keep some perturbations, and all control groups; the bins stay as they are.

        Parameters
        ----------
        perturbations
            Labels to keep.

        Returns
        -------
        Histograms

        Raises
        ------
        KeyError
            If a label is unknown.
        """
        return self._keep(self._is_control | self._is_any(perturbations))

    def drop(self, perturbations: Iterable[str]) -> Histograms:
        """Leave some perturbations out; control groups and the bins stay as they are.

        Parameters
        ----------
        perturbations
            Labels to leave out.

        Returns
        -------
        Histograms

        Raises
        ------
        KeyError
            If a label is unknown.
        """
        return self._keep(~self._is_any(perturbations))

    def save(self, path: str | Path) -> None:
        """Write to a netCDF file, which `load_histograms` reads back unchanged.

        Parameters
        ----------
        path
            Where to write; a file that is there is replaced once the new one is complete.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        IsADirectoryError
            If the path is that of a folder.
        """
        write_histograms(self.dataset, path)

    @staticmethod
    def load(path: str | Path) -> Histograms:
        """Read a file that `save` wrote; the same as `load_histograms`."""
        return load_histograms(path)

    @property
    def _is_control(self) -> NDArray[np.bool_]:
        return self.dataset["perturbation"].to_numpy() == self.control

    def _is_any(self, perturbations: Iterable[str]) -> NDArray[np.bool_]:
        given = [perturbations] if isinstance(perturbations, str) else perturbations
        names = {canonical_label(name, self.control) for name in given}
        unknown = sorted(names - set(self.perturbations))
        if unknown:
            raise KeyError(
                f"no such perturbation: {listed(unknown)}. There are: {listed(self.perturbations)}. Control "
                "groups are always kept and cannot be named"
            )
        return np.isin(self.dataset["perturbation"].to_numpy().astype(str), sorted(names))

    def _keep(self, groups: NDArray[np.bool_]) -> Histograms:
        return Histograms(self.dataset.isel(group=np.flatnonzero(groups)))

    def __repr__(self) -> str:
        n_cells, is_control = self.n_cells.to_numpy(), self._is_control
        perturbations, contexts, constant = self.perturbations, self.contexts, self.constant_genes
        rows = [
            (
                "cells",
                f"{n_cells.sum():,}, of which {n_cells[is_control].sum():,} of control {self.control!r}",
            ),
            ("perturbations", f"{len(perturbations):,}: {listed(perturbations, 5)}"),
            (
                "contexts",
                f"{len(contexts):,} of {self.dataset.attrs['context_key']!r}: {listed(contexts, 5)}",
            ),
            ("genes", f"{len(self.genes):,}"),
            ("constant genes", f"{len(constant):,}: {listed(constant, 5)}"),
            ("bins", f"{self.n_bins} a gene"),
        ]
        absent = set() if constant else {"constant genes"}
        absent |= set() if self.dataset.attrs["context_key"] else {"contexts"}
        outside = int(self.dataset["out_of_range"].sum())
        if outside:
            share = outside / (n_cells.sum() * len(self.genes))
            rows.append(("out of range", f"{share:.3%} of values, counted in the end bins"))
        return "\n".join(["Histograms", *(f"  {name:<15}{what}" for name, what in rows if name not in absent)])


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
    counted, so that the first and last centres are the minimum and maximum [1]_.

    Parameters
    ----------
    adata
        Cells × genes; log1p of counts per 10,000 in ``X`` or in `layer`. Never copied to a dense matrix.
    perturbation_key, control, context_key, layer, gene_symbols
        Where to find what, and the label of control cells: see `distpert.screen.read_screen`.
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
        If `n_bins` is below 2, or the data cannot be used (see `distpert.screen.read_screen`).
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
    screen = read_screen(
        adata,
        perturbation_key=perturbation_key,
        control=control,
        context_key=context_key,
        layer=layer,
        gene_symbols=gene_symbols,
        fallback_control=None if given is None else given.attrs["control"],
    )
    return count_screen(screen, n_bins=n_bins, bins=given, progress_bar=progress_bar)


def count_screen(
    screen: Screen, *, n_bins: int = 15, bins: xr.Dataset | None = None, progress_bar: bool = False
) -> Histograms:
    """Count a screen that has been read and checked; see `count_histograms`."""
    if bins is None and operator.index(n_bins) < 2:
        raise ValueError(f"n_bins must be at least 2, got {n_bins}")
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
    attrs = {"control": screen.control, "context_key": screen.context_key or "", "format_version": FORMAT_VERSION}
    attrs |= screen.columns
    return Histograms(_dataset(groups, genes, edges, counts, outside, attrs))


def load_histograms(path: str | Path) -> Histograms:
    """Read histograms from a file that `Histograms.save` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Histograms

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is no file of histograms, or was written by a newer version.
    """
    return Histograms(read_histograms(path))


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
