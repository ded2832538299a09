"""Files that are complete or absent, and how arrays are stored in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Write beside the target and move into place: a crash half way costs no file that was there.

    Parameters
    ----------
    path
        The target; what is there is replaced.
    write
        Writes to the path that it is given.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If the path is that of a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: give the path of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")  # several processes may share the folder
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def numeric_encoding(variable: xr.Variable) -> dict[str, Any]:
    """Encode a numeric variable so that every bit is kept, damage is told by a checksum, and what is large is small."""
    if variable.dtype.kind not in "fiu" or variable.ndim == 0:
        return {}
    encoding: dict[str, Any] = {"fletcher32": True}
    if variable.dtype.kind == "f":
        encoding["_FillValue"] = None
    if variable.size > 1000:
        encoding |= {"zlib": True, "complevel": 4, "shuffle": True}
    return encoding
