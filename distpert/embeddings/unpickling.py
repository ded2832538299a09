"""Read pickles of plain vectors without running any of their code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np


def load_plain(file: IO[bytes]) -> Any:
    """Unpickle plain containers, numbers and numeric arrays.

    Parameters
    ----------
    file
        Opened for reading bytes.

    Returns
    -------
    object
        Arrays that are values of the outermost dict are numpy arrays.

    Raises
    ------
    pickle.UnpicklingError
        If the stream is broken, or contains anything else, because that may run code.
    """
    try:
        content = _PlainUnpickler(file).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a broken stream can raise nearly any error
        raise pickle.UnpicklingError(f"not a readable pickle ({type(error).__name__}: {error})") from error
    if isinstance(content, dict):
        return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
    return content


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles plain containers, numbers and numeric arrays.

    Containers and numbers have opcodes of their own. Arrays need callables. The stream gets the stand-ins below instead
    of numpy's constructors, which trust their arguments, down to object pointers.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused {module}.{name}: only dicts, lists, tuples, strings, numbers and numeric numpy "
                "arrays are unpickled, because anything else may run code. If you trust the file, load it "
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
    """Stand-in for _codecs.encode, with which protocols 0 to 2 write bytes."""
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
