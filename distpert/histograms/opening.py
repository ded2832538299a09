"""Open the cells of a screen: an AnnData, in memory or not, a file or store, or several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import listed
from distpert.histograms.expression import check_matrix
from distpert.histograms.streams import Stacked

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ScreenSource: TypeAlias = Union["AnnData", str, "PathLike[str]", Sequence[Union["AnnData", str, "PathLike[str]"]]]


@dataclass(frozen=True, eq=False)
class Cells:
    """Annotation of cells and genes in memory, and expression that need not be.

    Attributes
    ----------
    obs, var
        Tables of cells and genes.
    matrices
        ``X`` (under None) and layers.
    name
        How errors call the data.
    has_raw
        Whether there are unscaled values beside ``X``.
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    matrices: Mapping[str | None, Any]
    name: str
    has_raw: bool

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        return [name for name in self.matrices if name is not None]

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` or a layer as it can be counted.

        Raises
        ------
        KeyError
            If the layer is unknown.
        TypeError, ValueError
            As `check_matrix` does.
        """
        if layer not in self.matrices:
            if layer is None:
                return check_matrix(None, self.source(None))
            raise KeyError(f"no layer {layer!r} in {self.name}.layers; there are: {listed(self.layers)}")
        return check_matrix(self.matrices[layer], self.source(layer))

    def source(self, layer: str | None) -> str:
        """Return how errors call the expression."""
        return f"{self.name}.X" if layer is None else f"{self.name}.layers[{layer!r}]"


@dataclass(frozen=True, eq=False)
class SeveralCells(Cells):
    """Cells of several sources, one below the other; ``matrices`` has only those that all of them have.

    Attributes
    ----------
    members
        The sources.
    columns
        For each of them, the columns of the genes of the first; None where they are in the same order.
    """

    members: tuple[Cells, ...]
    columns: tuple[Any, ...]

    def matrix(self, layer: str | None) -> Any:
        """Return ``X`` or a layer of all; see `Cells.matrix`."""
        return Stacked([one.matrix(layer) for one in self.members], self.columns)


def open_cells(source: ScreenSource, name: str = "adata") -> Cells:
    """Open the cells of a screen, without reading expression that is not in memory.

    Parameters
    ----------
    source
        AnnData, in memory, backed or lazy; path of an h5ad file or a zarr store; or a list of these.
    name
        How errors call it.

    Raises
    ------
    TypeError
        If it is something else.
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is no AnnData, or sources differ in their genes.
    """
    from anndata import AnnData

    if isinstance(source, AnnData):
        return _of_anndata(source, name)
    if isinstance(source, str | PathLike):
        return _of_file(Path(source))
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("an empty list of screens. Pass at least one AnnData or file")
        members = [open_cells(one, f"{name}[{number}]") for number, one in enumerate(source)]
        return members[0] if len(members) == 1 else _stack(members, name)
    raise TypeError(
        f"expected an anndata.AnnData of cells by genes, the path of an h5ad file or zarr store, or a list of these; "
        f"got {type(source).__name__}"
    )


def annotated(source: Any) -> AnnData | None:
    """Return the AnnData with unstructured annotation: the source, or the first one of a list; None for files."""
    from anndata import AnnData

    one = source[0] if isinstance(source, list | tuple) and source else source
    return one if isinstance(one, AnnData) else None


def _of_anndata(adata: AnnData, name: str) -> Cells:
    # X of a backed AnnData is opened here, and not read.
    matrices: dict[str | None, Any] = {None: adata.X} | {
        str(layer): adata.layers[layer] for layer in adata.layers if layer is not None
    }
    return Cells(_in_memory(adata.obs), _in_memory(adata.var), matrices, name, adata.raw is not None)


def _in_memory(table: Any) -> pd.DataFrame:
    """Return a table of AnnData, which may be lazy, as a DataFrame."""
    return table.to_memory() if hasattr(table, "to_memory") else table


def _of_file(path: Path) -> Cells:
    from anndata.io import read_elem

    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        root = _open_root(path)
        obs, var = read_elem(root["obs"]), read_elem(root["var"])
        names = list(root["layers"]) if "layers" in root else []
        matrices: dict[str | None, Any] = {name: _element(root["layers"][name]) for name in names}
        if "X" in root:
            matrices[None] = _element(root["X"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"cannot read {path} as an h5ad file or a zarr store of AnnData: {error}") from error
    return Cells(obs, var, matrices, str(path), "raw" in root)


def _open_root(path: Path) -> Any:
    if path.is_dir():
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r")


def _element(stored: Any) -> Any:
    """Return a matrix of a file without reading it."""
    from anndata.io import sparse_dataset

    return stored if hasattr(stored, "shape") else sparse_dataset(stored)


def _stack(members: Sequence[Cells], name: str) -> SeveralCells:
    import pandas as pd

    first = members[0]
    columns: list[NDArray[np.intp] | None] = []
    for one in members:
        if one.var.index.equals(first.var.index):
            columns.append(None)
            continue
        if differing := sorted(map(str, one.var.index.symmetric_difference(first.var.index))):
            raise ValueError(
                f"{one.name} and {first.name} differ in {len(differing):,} genes ({listed(differing)}). Keep the genes "
                "that all have"
            )
        if one.var.index.has_duplicates:
            raise ValueError(f"{one.name} has genes in another order than {first.name}, and duplicated names")
        columns.append(np.asarray(one.var.index.get_indexer(first.var.index), np.intp))
    layers = [layer for layer in first.matrices if all(layer in one.matrices for one in members)]
    return SeveralCells(
        obs=pd.concat([one.obs for one in members]),
        var=first.var,
        matrices=dict.fromkeys(layers),
        name=name,
        has_raw=all(one.has_raw for one in members),
        members=tuple(members),
        columns=tuple(columns),
    )
