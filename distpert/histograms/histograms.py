"""Histograms of a screen: the only data that the model is fitted to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import canonical_label, listed
from distpert.histograms.addition import add_cells
from distpert.histograms.files import read_histograms, write_histograms
from distpert.histograms.keys import ScreenKeys

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False, repr=False)
class Histograms:
    """Numbers of cells in bins of equal width, for each group of cells and each gene.

    `distpert.count_histograms` counts them. A group is the cells with the same perturbation and context. Control groups
    come first, then the others, sorted by perturbation and context.

    Attributes
    ----------
    dataset : Dataset
        ``counts`` (group, gene, bin), ``n_cells`` (group), and ``out_of_range`` (group, gene), the number of values
        beyond the bins, which are counted in the end bins. Coordinates ``perturbation`` and ``context`` (group),
        ``gene``, ``bin_left`` and ``bin_right`` (gene, bin) in units of the data. Attributes ``control``,
        ``context_key`` (empty if there is none), the other names of `ScreenKeys`, and ``format_version``.

    See Also
    --------
    distpert.count_histograms, distpert.load_histograms, distpert.fit

    Examples
    --------
    >>> histograms = distpert.count_histograms(adata, context_key="day")  # doctest: +SKIP
    >>> fit = distpert.fit(histograms.drop(["SOX2"]), embeddings)  # doctest: +SKIP
    """

    dataset: xr.Dataset

    @property
    def counts(self) -> xr.DataArray:
        """Numbers of cells (group, gene, bin), in the smallest unsigned type: convert them before you subtract."""
        return self.dataset["counts"]

    @property
    def n_cells(self) -> xr.DataArray:
        """Numbers of cells (group)."""
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
        """Sorted contexts; ``("all",)`` if there is no context key."""
        return tuple(sorted(set(self.dataset["context"].to_numpy().tolist())))

    @property
    def keys(self) -> ScreenKeys:
        """The names by which the cells were read."""
        return ScreenKeys.from_attrs(self.dataset.attrs)

    @property
    def columns(self) -> dict[str, Any]:
        """The same names as a dict, to read other cells of the same screen with ``**histograms.columns``."""
        return self.keys.to_dict()

    @property
    def control(self) -> str:
        """Label of the control cells."""
        return self.keys.control

    @property
    def context_key(self) -> str | None:
        """Column of the data with the context, None if there is none."""
        return self.keys.context_key

    @property
    def constant_genes(self) -> tuple[str, ...]:
        """Genes with the same value in all cells. Their bins have width 0, and all cells are in the first bin."""
        return tuple(self.dataset["gene"].to_numpy()[self.widths.to_numpy() == 0].tolist())

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return int(self.dataset.sizes["bin"])

    @property
    def centers(self) -> xr.DataArray:
        """Bin centers (gene, bin); the first and last are the smallest and largest value of the gene."""
        centers = (self.dataset["bin_left"] + self.dataset["bin_right"]) / 2
        return centers.drop_vars(["bin_left", "bin_right"]).rename("centers")

    @property
    def widths(self) -> xr.DataArray:
        """Bin widths (gene)."""
        left, right = (self.dataset[name].reset_coords(drop=True) for name in ("bin_left", "bin_right"))
        return ((right.isel(bin=-1) - left.isel(bin=0)) / self.n_bins).rename("widths")

    def select(self, perturbations: Iterable[str]) -> Histograms:
        """Keep some perturbations and all control groups, in the same bins.

        Parameters
        ----------
        perturbations : str or iterable of str
            Labels to keep.

        Returns
        -------
        Histograms

        Raises
        ------
        KeyError
            If a label is unknown.

        Examples
        --------
        >>> histograms = distpert.count_histograms(adata, context_key="day")  # doctest: +SKIP
        >>> histograms.select(["NANOG", "SOX2"]).perturbations  # doctest: +SKIP
        ('NANOG', 'SOX2')
        """
        return self._keep(self._is_control | self._is_any(perturbations))

    def drop(self, perturbations: Iterable[str]) -> Histograms:
        """Leave out some perturbations, and keep all control groups, in the same bins.

        Parameters
        ----------
        perturbations : str or iterable of str
            Labels to leave out.

        Returns
        -------
        Histograms

        Raises
        ------
        KeyError
            If a label is unknown.

        Examples
        --------
        >>> training = histograms.drop(["NANOG", "SOX2"])  # doctest: +SKIP
        >>> fit = distpert.fit(training, embeddings)  # doctest: +SKIP
        """
        return self._keep(~self._is_any(perturbations))

    def __add__(self, other: Histograms) -> Histograms:
        """Add the cells of other histograms with the same genes and bins, such as those of another file.

        Groups of the same perturbation and context become one.

        Parameters
        ----------
        other : Histograms
            Of other cells, counted with ``bins=`` these histograms.

        Returns
        -------
        Histograms

        Raises
        ------
        ValueError
            If genes, bins, the control or the names of columns differ.

        Examples
        --------
        >>> one = distpert.count_histograms("lane1.h5ad", bins=ranges)  # doctest: +SKIP
        >>> both = one + distpert.count_histograms("lane2.h5ad", bins=ranges)  # doctest: +SKIP
        """
        if not isinstance(other, Histograms):
            return NotImplemented
        return Histograms(add_cells(self.dataset, other.dataset))

    def save(self, path: str | Path) -> None:
        """Write to a netCDF file. `load_histograms` reads it back unchanged.

        Parameters
        ----------
        path : str or path
            The file. An existing one is replaced once the new one is complete.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        IsADirectoryError
            If the path is a folder.

        Examples
        --------
        >>> histograms.save("counts.nc")  # doctest: +SKIP
        >>> distpert.load_histograms("counts.nc")  # doctest: +SKIP
        """
        write_histograms(self.dataset, path)

    @staticmethod
    def load(path: str | Path) -> Histograms:
        """Read a file that `save` wrote, like `load_histograms`.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        Histograms

        Examples
        --------
        >>> histograms.save("counts.nc")  # doctest: +SKIP
        >>> histograms = distpert.Histograms.load("counts.nc")  # doctest: +SKIP
        """
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
                f"no such perturbation: {listed(unknown)}. The perturbations are {listed(self.perturbations)}. Control "
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
                f"{len(contexts):,} of {self.context_key!r}: {listed(contexts, 5)}",
            ),
            ("genes", f"{len(self.genes):,}"),
            ("constant genes", f"{len(constant):,}: {listed(constant, 5)}"),
            ("bins", f"{self.n_bins} for each gene"),
        ]
        absent = set() if constant else {"constant genes"}
        absent |= set() if self.context_key else {"contexts"}
        outside = int(self.dataset["out_of_range"].sum())
        if outside:
            share = outside / (n_cells.sum() * len(self.genes))
            rows.append(("out of range", f"{share:.3%} of values, counted in the end bins"))
        return "\n".join(["Histograms", *(f"  {name:<15}{what}" for name, what in rows if name not in absent)])


def load_histograms(path: str | Path) -> Histograms:
    """Read histograms from a file that `Histograms.save` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Histograms

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has no histograms, or was written by a newer version.

    See Also
    --------
    distpert.count_histograms, distpert.load

    Examples
    --------
    >>> histograms = distpert.load_histograms("counts.nc")  # doctest: +SKIP
    """
    return Histograms(read_histograms(path))
