"""Read gene embeddings from the files that people publish them in."""

from __future__ import annotations

import csv
import gzip
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from distpert._shared.labels import listed
from distpert.embeddings.tables import frame_from_vectors, validate_embeddings

if TYPE_CHECKING:
    import pandas as pd

    # Either a table, or the genes and their vectors, which may yet differ in length.
    Content: TypeAlias = "pd.DataFrame | tuple[list[str], list[Any]]"

__all__ = ["read_embeddings"]


def read_embeddings(path: str | os.PathLike[str], *, rename: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read gene embeddings from a file.

    Parameters
    ----------
    path : str or path
        The suffix tells the layout:

        ``.npz``
            Arrays ``symbols`` (or ``genes``, ``names``) and ``emb`` (or ``embeddings``, ``vectors``, ``X``;
            genes × dims), or one array a gene, named by its symbol.
        ``.parquet``
            Genes in the index or else in the first column of strings; all other columns are dims.
        ``.csv``, ``.tsv``, ``.txt``, and these with ``.gz``
            Genes in the first column; a header is optional. ``.txt`` is split at commas or at white space,
            and may start with the line "genes dims" of the word2vec format.
        ``.h5``, ``.hdf5``
            One dataset a protein at the top level, as in UniProt's ``per-protein.h5`` (ProtT5). The names are
            those the file has, which are accessions there (``P04637``), not gene symbols: see `rename`.
        ``.pickle``, ``.pkl``
            A dict from symbols to lists or arrays of numbers, as published by GenePT. Nothing but dicts,
            lists, tuples, strings, numbers and numeric arrays is unpickled, so that no code of the file runs.
    rename : mapping of str to str, optional
        From names in the file to gene symbols. Names that it does not hold are kept.

    Returns
    -------
    DataFrame, shape (genes, dims)
        float32 (whatever the precision of the file), index named "gene", columns 0 to dims − 1 named "dim".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If it is a folder.
    ValueError
        If the suffix is unknown, the file is not what its suffix says, or the embeddings are invalid
        (duplicated symbols, different lengths, cells that are not finite numbers, rows of zeros).
    pickle.UnpicklingError
        If a pickle holds anything else than plain containers, numbers and numeric arrays.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the path of a file in it")
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
    if rename is not None:
        if not any(gene in rename for gene in content.index):
            raise ValueError(f"{path}: rename holds none of the names in the file: {listed(content.index)}")
        content = content.rename(index=rename)
    return validate_embeddings(content, str(path))


# What the readers raise for a file that is not what its suffix says.
_BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, csv.Error, zipfile.BadZipFile, zlib.error)
_NAME_KEYS = ("symbols", "genes", "names")
_VECTOR_KEYS = ("emb", "embeddings", "vectors", "X")
_HEADS = {"gene", "symbol", "name", "gene_symbol", "gene_name", *_NAME_KEYS}  # of a column; no gene is called so


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
                f"expected one of {', '.join(_NAME_KEYS)} and one of {', '.join(_VECTOR_KEYS)}, or one vector a gene; "
                f"found the arrays {listed(keys)}"
            )
        try:
            symbols = archive[names[0]]
        except ValueError as error:
            raise ValueError(
                f"{names[0]!r} must be saved as an array of str, not of objects: np.array(list(names))"
            ) from error
        vectors = archive[tables[0]]
    if symbols.dtype.kind == "S":
        symbols = np.char.decode(symbols, "utf-8")
    if symbols.ndim != 1 or vectors.ndim != 2 or len(symbols) != len(vectors):
        raise ValueError(
            f"{names[0]!r} of shape {symbols.shape} does not name the rows of {tables[0]!r} of shape {vectors.shape}"
        )
    return pd.DataFrame(vectors, index=pd.Index(symbols.tolist(), dtype=object))


def _read_parquet(path: Path) -> Content:
    import pandas as pd

    frame = pd.read_parquet(path)
    if not all(isinstance(gene, str) for gene in frame.index):
        for name in frame.columns:
            if any(isinstance(cell, str) for cell in frame[name]):
                return frame.set_index(name)
        raise ValueError("neither the index nor a column holds gene symbols (strings)")
    return frame


def _read_text(path: Path) -> Content:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = _rows(file, path)
        first, second = next(rows, None), next(rows, None)
        if first is None or second is None:
            raise ValueError("it has fewer than two rows")
        _check_columns(second[1])
        has_header = _is_header(first[1], second[1])
        genes, vectors = [], []
        for line, (gene, *cells) in chain([second] if has_header else [first, second], rows):
            genes.append(gene.strip())
            try:
                with np.errstate(over="ignore"):  # becomes inf, which validation names
                    vectors.append(np.array(cells, dtype=np.float32))
            except ValueError:
                wrong = next(cell for cell in cells if not _is_number(cell))
                raise ValueError(f"{wrong!r} is not a number (line {line}, gene {gene!r})") from None
    names = first[1][1:]
    if has_header and genes == list(map(str, range(len(genes)))) and not any(map(_is_number, names)):
        raise ValueError(
            f"transposed, or without genes: the columns are {listed(names, 5)}, and the first holds 0, 1, ...; "
            "write genes x dims, with the genes first (of a transposed table, .T)"
        )
    return genes, vectors


def _check_columns(cells: list[str]) -> None:
    """Refuse a row that is split at something else, or that begins with its number."""
    marks, unsplit = (";\t", cells[1:]) if len(cells) > 1 else (";\t, ", [cells[0].strip()])
    for mark in marks:
        if any(mark in cell for cell in unsplit):
            raise ValueError(
                f"its columns seem to be separated by {mark!r}, which files of this suffix are not: read it with "
                f"pandas.read_csv(path, sep={mark!r}, index_col=0), and pass the table"
            )
    if len(cells) > 2 and _is_number(cells[0]) and re.search(r"[^\W\d]", cells[1]) and not _is_number(cells[1]):
        raise ValueError(
            f"genes must come first, but the first column holds {cells[0]!r} and the second {cells[1]!r}: "
            "leave the numbers of rows out, frame.to_csv(path, index=False)"
        )


def _rows(file: IO[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of all lines that are not blank."""
    kind = next(suffix.lower() for suffix in path.suffixes[::-1] if suffix.lower() in _TEXT)
    numbered = ((line, text) for line, text in enumerate(file, 1) if text.strip())
    start = next(numbered, None)
    if start is None:
        return
    if kind == ".txt":
        kind = ".csv" if "," in start[1] and "\t" not in start[1] else "white space"
    for line, text in chain([start], numbered):
        if kind == "white space":
            yield line, [cell.strip('"') for cell in text.split()]
        else:
            yield line, next(csv.reader([text], delimiter="," if kind == ".csv" else "\t"))


def _is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first row names the columns: by "gene", words, 0, 1, ... or 1, 2, ..., or as word2vec does."""
    dims = len(second) - 1
    if len(first) == 2 and first[1] == str(dims) and _is_number(first[0]):
        return True  # "24447 200"
    # R leaves out the name of the first column, and so does white space where that name is blank.
    if len(first) != dims + 1 and (len(first) != dims or dims < 2):
        return False
    names = first[-dims:] if dims else []
    if any(map(_is_number, names)):
        if len(first) == dims + 1 and first[0].strip().lower() in _HEADS:
            return True
        return dims > 1 and any(names == [str(start + i) for i in range(dims)] for start in (0, 1))
    return 0 < len(set(names)) == len(names)  # else a row of blanks or NAs, not to be passed over


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_hdf5(path: Path) -> Content:
    import h5py

    with h5py.File(path, "r") as file:
        vectors = {}
        for name, item in file.items():
            if not isinstance(item, h5py.Dataset) or item.ndim != 1:
                found = f"of shape {item.shape}" if isinstance(item, h5py.Dataset) else "a group"
                raise ValueError(
                    f"{name!r} is {found}; expected one vector a protein at the top level, "
                    "as in per-protein.h5 (not per-residue.h5)"
                )
            vectors[name] = item[()]
    return list(vectors), list(vectors.values())


def _read_pickle(path: Path) -> Content:
    with path.open("rb") as file:
        try:
            content = _PlainUnpickler(file).load()
        except pickle.UnpicklingError:
            raise
        except Exception as error:  # a broken stream may raise nearly anything
            raise pickle.UnpicklingError(f"not a readable pickle ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict) or not all(isinstance(gene, str) for gene in content):
        raise ValueError("expected a dict from gene symbols to vectors")
    vectors = [value.array if isinstance(value, _Array) else value for value in content.values()]
    return list(content), vectors


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles plain containers, numbers and numeric arrays.

    Containers and numbers have opcodes of their own. Arrays need callables, and instead of numpy's (whose
    constructors trust what they are given, down to object pointers) the stream gets the stand-ins below.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused {module}.{name}: only dicts, lists, tuples, strings, numbers and numeric numpy "
                "arrays are unpickled, since anything else may run code. If you trust the file, load it "
                "yourself and pass a dict of vectors or a DataFrame"
            ) from None


class _Dtype:
    """Stand-in for numpy.dtype: real numbers only."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.__setstate__((3, "="))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        name = f"{state[1]}{self.code}"  # state[1] is the byte order
        if not re.fullmatch("[<>=|](f[248]|[iu][1248])", name):
            raise pickle.UnpicklingError(f"refused dtype {self.code!r}: arrays must hold real numbers")
        self.dtype = np.dtype(name)


class _Array:
    """Stand-in for numpy.ndarray."""

    array: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, raw = state
        self.array = _from_buffer(raw, dtype, shape, "F" if is_fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any, *_: Any) -> Any:
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype: _Dtype, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for _codecs.encode, by which protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused _codecs.encode to {encoding!r}")
    return str.encode(text, "latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in ("numpy.core", "numpy._core")},
}

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
