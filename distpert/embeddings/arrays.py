"""Vectors of other libraries as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WAY_OUT = "convert it first, for instance with vector.detach().cpu().float().numpy()"


def to_array(value: Any) -> NDArray[Any]:
    """Convert a vector, or a table of vectors, to a numpy array of real numbers.

    Tensors with gradients, on a device or in bfloat16 are converted with their own methods.

    Parameters
    ----------
    value
        An array, a tensor, or nested lists of numbers.

    Returns
    -------
    ndarray
        Integers or floats.

    Raises
    ------
    ValueError
        If it is ragged, cannot be converted, or does not contain real numbers. The message has no subject: the caller
        puts the name of the vector before it.
    """
    try:
        for method in ("detach", "cpu", "float"):
            # torch's tensors have all three; numpy's and jax's arrays have none.
            if hasattr(value, "detach") and hasattr(value, method):
                value = getattr(value, method)()
        array = np.asarray(value)
    except Exception as error:  # the other library may raise anything
        if "inhomogeneous" in str(error):
            raise ValueError(
                "has rows of different lengths: pass one vector for each gene, for instance the mean over tokens"
            ) from error
        raise ValueError(f"cannot be converted to numpy ({type(error).__name__}: {error}): {_WAY_OUT}") from error
    if array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat", "float")):
        array = array.astype(np.float32)  # the small floats of machine learning
    if array.dtype.kind not in "fiu" and array.size:
        raise ValueError(f"must hold real numbers, but has dtype {array.dtype}")
    return array
