"""How files are written: completely or not at all, and with which encoding of arrays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Write to a temporary file, then move it into place. A crash leaves an existing file as it was.

    Parameters
    ----------
    path
        The target. An existing file is replaced.
    write
        Function that writes to a path.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Pass the path of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}. Create it first")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")  # several processes may share the folder
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def numeric_encoding(variable: xr.Variable) -> dict[str, Any]:
    """Return the encoding of a numeric variable: lossless, with a checksum, and compressed if it is large."""
    if variable.dtype.kind not in "fiu" or variable.ndim == 0:
        return {}
    encoding: dict[str, Any] = {"fletcher32": True}
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = None
    if variable.size > 1000:
        encoding |= {"zlib": True, "complevel": 4, "shuffle": True}
    return encoding
