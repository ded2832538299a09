"""Files from which an interrupted optimization goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from distpert._shared.files import write_whole

SECONDS = 60.0  # between two writes


@dataclass
class Checkpoint:
    """The file of one optimization.

    Attributes
    ----------
    path
        The file; it is replaced once the new one is complete.
    fingerprint
        Of data and settings, see `fingerprint`. A file with another one is refused.
    seconds
        Least time between two writes.
    """

    path: Path
    fingerprint: str
    seconds: float = SECONDS
    _written: float = field(default_factory=time.monotonic, init=False)

    def read(self, like: Any) -> tuple[Any, Array, list[float]] | None:
        """Return the state, the random key and the losses; None if there is no file.

        ``like`` is a state of the same structure.

        Raises
        ------
        ValueError
            If the file is damaged, or of other data or settings.
        """
        if not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                saved = {name: stored[name] for name in stored.files}
            fingerprint = str(saved.pop("fingerprint"))
            losses, key = saved.pop("losses").tolist(), saved.pop("key")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ValueError(f"cannot read the checkpoint {self.path}. Delete it to start anew") from error
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"the checkpoint {self.path} is of other data or settings. Pass another path, or delete it to start "
                "anew"
            )
        leaves, structure = jax.tree.flatten(like)
        found = [_like(leaf, saved[f"leaf{i}"]) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, found), jax.random.wrap_key_data(key, impl="rbg"), losses

    def write(self, state: Any, key: Array, losses: list[float], *, now: bool = False) -> None:
        """Write the file, if the last one is old enough or ``now``."""
        if not now and time.monotonic() - self._written < self.seconds:
            return
        arrays: dict[str, Any] = {f"leaf{i}": _data(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        arrays |= {"key": _data(key), "losses": np.array(losses), "fingerprint": np.array(self.fingerprint)}

        def write(part: Path) -> None:
            with open(part, "wb") as file:
                np.savez(file, **arrays)

        write_whole(self.path, write)
        self._written = time.monotonic()


def fingerprint(arrays: Mapping[str, NDArray], *settings: object) -> str:
    """Return a digest of arrays and settings."""
    digest = blake2b(repr(settings).encode(), digest_size=16)
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _data(leaf: Any) -> NDArray[Any]:
    """Return an array, or the data of a random key, as numpy's."""
    is_key = isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _like(leaf: Any, stored: NDArray[Any]) -> Any:
    """Turn stored data into an array or a random key, as ``leaf`` is."""
    is_key = isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return (
        jax.random.wrap_key_data(jax.numpy.asarray(stored), impl=jax.random.key_impl(leaf))
        if is_key
        else jax.numpy.asarray(stored)
    )
