"""Read gene embeddings from files in the usual formats."""

from __future__ import annotations

import csv
import gzip
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from distpert._shared.labels import listed
from distpert.embeddings.tables import frame_from_vectors, validate_embeddings
from distpert.embeddings.unpickling import load_plain

if TYPE_CHECKING:
    import pandas as pd

    # Either a table, or the genes and their vectors, which may still differ in length.
    Content: TypeAlias = "pd.DataFrame | tuple[list[str], list[Any]]"

__all__ = ["read_embeddings"]


def read_embeddings(
    path: str | os.PathLike[str], *, rename: Mapping[str, str] | None = None, drop: Sequence[str] = ()
) -> pd.DataFrame:
    """Read gene embeddings from a file.

    Parameters
    ----------
    path : str or path
        The file. Its suffix determines the format:

        ``.npz``
            Arrays ``symbols`` (or ``genes``, ``names``) and ``emb`` (or ``embeddings``, ``vectors``, ``X``;
            genes × dims), or one array for each gene, named by its symbol.
        ``.parquet``
            Genes in the index or else in the first column of strings; all other columns are dims. Needs pyarrow.
        ``.csv``, ``.tsv``, ``.txt``, and these with ``.gz``
            Genes in the first column; a header is optional. ``.txt`` is split at commas or at white space,
            and may start with the line "genes dims" of the word2vec format.
        ``.h5``, ``.hdf5``
            One dataset for each protein at the top level, as in UniProt's ``per-protein.h5`` (ProtT5). That file names
            proteins by accession (``P04637``), not by gene symbol: see `rename`.
        ``.pickle``, ``.pkl``
            A dict from symbols to lists or arrays of numbers, as published by GenePT. Only dicts, lists, tuples,
            strings, numbers and numeric arrays are unpickled. No code of the file runs.
    rename : mapping of str to str, optional
        From names in the file to gene symbols. Names that it does not contain are kept.
    drop : str or sequence of str, optional
        Columns of a table that are not dimensions, such as identifiers, row numbers or notes.

    Returns
    -------
    DataFrame, shape (genes, dims)
        float32 for every precision of the file; index named "gene", columns "0" to "dims − 1" named "dim". AnnData can
        store it in ``adata.uns``, also with symbols that contain a slash.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If the path is a folder.
    ValueError
        If the suffix is unknown, the content does not fit the suffix, a column to drop is absent, or the embeddings are
        invalid: duplicated symbols, different lengths, columns of row numbers or identifiers, cells that are not finite
        numbers, rows of zeros.
    pickle.UnpicklingError
        If a pickle contains anything but plain containers, numbers and numeric arrays.
    ImportError
        If the file is a parquet file and pyarrow is not installed.

    See Also
    --------
    distpert.fit, distpert.embed_text, distpert.Embeddings

    Examples
    --------
    >>> embeddings = distpert.read_embeddings("embeddings.npz")  # doctest: +SKIP
    >>> adata.uns["embeddings"] = embeddings  # doctest: +SKIP
    >>> fit = distpert.fit(adata, "embeddings")  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Pass the path of a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix == ".gz" and path.with_suffix("").suffix.lower() in _TEXT:
        suffix = path.with_suffix("").suffix.lower()
    if suffix not in _READERS:
        supported = ", ".join([*_READERS, *(f"{text}.gz" for text in _TEXT)])
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; supported are {supported}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")

    try:
        content = _READERS[suffix](path)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(f"{path}: {error}") from error
    except PermissionError:
        raise
    except _BROKEN as error:
        raise ValueError(f"{path}: cannot be read as {suffix}: {error}") from error
    if isinstance(content, tuple):
        genes, vectors = content
        content = frame_from_vectors(genes, vectors, str(path))
    names = [drop] if isinstance(drop, str) else list(drop)
    if absent := [name for name in names if name not in content.columns]:
        raise ValueError(
            f"{path}: no columns {listed(map(repr, absent))} to drop. The columns are {listed(content.columns)}"
        )
    content = content.drop(columns=names)
    if rename is not None:
        if not any(gene in rename for gene in content.index):
            raise ValueError(
                f"{path}: rename has none of the names in the file ({listed(content.index)}). Pass a mapping from "
                "these names to gene symbols"
            )
        content = content.rename(index=rename)
    return validate_embeddings(content, str(path))


# What the readers raise for a file with other content than its suffix promises.
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, csv.Error, zipfile.BadZipFile, zlib.error)
_NAME_KEYS = ("symbols", "genes", "names")
_VECTOR_KEYS = ("emb", "embeddings", "vectors", "X")
_HEADS = {"gene", "symbol", "name", "gene_symbol", "gene_name", *_NAME_KEYS}  # titles of a column of genes


def _read_npz(path: Path) -> Content:
    import pandas as pd

    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip archive of arrays")
    with np.load(path, allow_pickle=False) as archive:
        keys = archive.files
        names = [key for key in keys if key in _NAME_KEYS]
        tables = [key for key in keys if key in _VECTOR_KEYS]
        if not names and not tables:
            with suppress(ValueError):  # an array of objects is no vector
                arrays = [archive[key] for key in keys]
                if all(array.ndim == 1 for array in arrays):
                    return keys, arrays
        if len(names) != 1 or len(tables) != 1:
            raise ValueError(
                f"expected one of {', '.join(_NAME_KEYS)} and one of {', '.join(_VECTOR_KEYS)}, or one vector for each "
                f"gene; found the arrays {listed(keys)}"
            )
        try:
            symbols = archive[names[0]]
        except ValueError as error:
            raise ValueError(f"save {names[0]!r} as an array of str, not of objects: np.array(list(names))") from error
        vectors = archive[tables[0]]
    if symbols.dtype.kind == "S":
        symbols = np.char.decode(symbols, "utf-8")
    if symbols.ndim != 1 or vectors.ndim != 2 or len(symbols) != len(vectors):
        raise ValueError(
            f"{names[0]!r} must have one symbol for each row of {tables[0]!r}, but the shapes are {symbols.shape} and "
            f"{vectors.shape}"
        )
    return pd.DataFrame(vectors, index=pd.Index(symbols.tolist(), dtype=object))


def _read_parquet(path: Path) -> Content:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(f"{path}: parquet files need pyarrow: pip install pyarrow") from error
    if not all(isinstance(gene, str) for gene in frame.index):
        for name in frame.columns:
            if any(isinstance(cell, str) for cell in frame[name]):
                return frame.set_index(name)
        raise ValueError("neither the index nor a column holds gene symbols (strings). Write them as a column of text")
    return frame


def _read_text(path: Path) -> Content:
    import pandas as pd

    separator, rows = _first_rows(path)
    if len(rows) < 2:
        raise ValueError("it has fewer than two rows")
    (head_line, head), (_, first) = rows
    _check_columns(first)
    has_header = _is_header(head, first)
    n_dims = len(first) - 1
    is_named = has_header and len(head) in (n_dims, n_dims + 1) and not _is_word2vec(head, n_dims)
    names = head[len(head) - n_dims :] if is_named and n_dims else [str(dim) for dim in range(n_dims)]
    table = pd.read_csv(
        path,
        sep=separator,
        header=None,
        names=range(len(first)),  # a later row with more cells is an error that names the line
        index_col=0,
        skiprows=head_line if has_header else 0,
        dtype={0: str},
        keep_default_na=False,  # a symbol such as NAN is not a missing name
        na_values={column: ["nan", "NaN"] for column in range(1, len(first))},
        skipinitialspace=True,
        encoding="utf-8-sig",
    )
    # Errors name the cells that are not numbers, so the others of a mixed column become numbers.
    for column in [column for column, dtype in table.dtypes.items() if dtype.kind == "O"]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        table[column] = numbers.astype(object).where(numbers.notna(), table[column])
    table = table.set_axis(names, axis=1)
    table.index = [gene.strip() for gene in table.index]
    genes = list(table.index)
    if has_header and genes == list(map(str, range(len(genes)))) and not any(map(_is_number, names)):
        raise ValueError(
            f"no gene symbols in the first column, which holds 0, 1, ...; the other columns are {listed(names, 5)}. "
            "Write the symbols in the first column, and transpose a table of dims x genes with .T"
        )
    return table


def _first_rows(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the separator of a text file, and line number and cells of its first two lines that are not blank."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = list(islice(((line, text) for line, text in enumerate(file, 1) if text.strip()), 2))
    kind = next(suffix.lower() for suffix in path.suffixes[::-1] if suffix.lower() in _TEXT)
    separator = {".csv": ",", ".tsv": "\t", ".txt": r"\s+"}[kind]
    if kind == ".txt" and lines and "," in lines[0][1] and "\t" not in lines[0][1]:
        separator = ","

    def cells(text: str) -> list[str]:
        if separator == r"\s+":
            return [cell.strip('"') for cell in text.split()]
        return [cell.strip() for cell in next(csv.reader([text], delimiter=separator))]

    return separator, [(line, cells(text)) for line, text in lines]


def _check_columns(cells: list[str]) -> None:
    """Refuse a row with another separator, and one that begins with its number."""
    marks, unsplit = (";\t", cells[1:]) if len(cells) > 1 else (";\t, ", [cells[0].strip()])
    for mark in marks:
        if any(mark in cell for cell in unsplit):
            raise ValueError(
                f"its columns seem to be separated by {mark!r}, which does not fit the suffix. Read it with "
                f"pandas.read_csv(path, sep={mark!r}, index_col=0) and pass the table"
            )
    if len(cells) > 2 and _is_number(cells[0]) and re.search(r"[^\W\d]", cells[1]) and not _is_number(cells[1]):
        raise ValueError(
            f"genes must come first, but the first column holds {cells[0]!r} and the second {cells[1]!r}. Write the "
            "file without row numbers: frame.to_csv(path, index=False)"
        )


def _is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first row is a header: "gene", words, 0, 1, ... or 1, 2, ..., or the first line of word2vec."""
    dims = len(second) - 1
    if _is_word2vec(first, dims):
        return True
    # R omits the name of the first column. A blank name is also lost where cells are separated by white space.
    if len(first) != dims + 1 and (len(first) != dims or dims < 2):
        return False
    names = first[-dims:] if dims else []
    if any(map(_is_number, names)):
        if len(first) == dims + 1 and first[0].strip().lower() in _HEADS:
            return True
        return dims > 1 and any(names == [str(start + i) for i in range(dims)] for start in (0, 1))
    return 0 < len(set(names)) == len(names)  # otherwise a row of blanks or NAs, which must be reported


def _is_word2vec(cells: list[str], dims: int) -> bool:
    """Whether a row is the first line of the word2vec format, "genes dims"."""
    return len(cells) == 2 and cells[1] == str(dims) and _is_number(cells[0])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_hdf5(path: Path) -> Content:
    import h5py

    vectors: dict[str, Any] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):  # HDF5 stores a symbol with a slash as a group that has a dataset
            for key, inner in item.items():
                add(f"{name}/{key}", inner)
        elif item.ndim == 1:
            vectors[name] = item[()]
        else:
            raise ValueError(f"{name!r} has shape {item.shape}; {_PER_PROTEIN}")

    with h5py.File(path, "r") as file:
        if file and all(isinstance(item, h5py.Group) for item in file.values()):
            raise ValueError(f"{next(iter(file))!r} is a group; {_PER_PROTEIN}")
        for name, item in file.items():
            add(name, item)
    return list(vectors), list(vectors.values())


_PER_PROTEIN = "expected one vector for each protein at the top level, as in per-protein.h5 (not per-residue.h5)"


def _read_pickle(path: Path) -> Content:
    with path.open("rb") as file:
        content = load_plain(file)
    if not isinstance(content, dict) or not all(isinstance(gene, str) for gene in content):
        raise ValueError("expected a dict from gene symbols to vectors")
    return list(content), list(content.values())


_TEXT = (".csv", ".tsv", ".txt")
_READERS: dict[str, Callable[[Path], Content]] = {
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    **dict.fromkeys(_TEXT, _read_text),
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".pickle": _read_pickle,
    ".pkl": _read_pickle,
}
