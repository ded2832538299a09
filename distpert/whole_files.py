"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


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
