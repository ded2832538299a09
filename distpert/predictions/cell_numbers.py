"""Numbers of cells, in any form that users pass, put in the order of a prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpert._shared.labels import canonical_label, label_text, listed
from distpert.predictions.layout import Blocks

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    CellNumbers: TypeAlias = int | Mapping[str, int] | pd.Series | pd.DataFrame | xr.DataArray | ArrayLike | None


def numbers_of_cells(prediction: Blocks, n_cells: CellNumbers) -> NDArray[np.int64] | None:
    """Return numbers of cells (perturbation, context) of a prediction, None if none are given.

    Raises
    ------
    KeyError
        If a predicted perturbation or context has no number.
    ValueError
        If a number is not a whole number above 0, or the numbers have another shape or other labels.
    """
    if n_cells is None:
        return None
    shape = (len(prediction.perturbations), len(prediction.contexts))
    numbers = aligned_numbers(n_cells, prediction.perturbations, prediction.contexts, prediction.training.control)
    if numbers is None:
        numbers = np.asarray(n_cells)
        if numbers.shape not in ((), shape[:1], (shape[0], 1), shape):
            raise ValueError(f"n_cells has shape {numbers.shape}, but must be (perturbation, [context]): {shape}")
        numbers = numbers.reshape(len(numbers), -1) if numbers.ndim else numbers
    given = np.broadcast_to(numbers, shape)
    for number in given.ravel().tolist():
        if isinstance(number, bool) or not isinstance(number, int | float) or number % 1:
            raise ValueError(f"n_cells must be whole numbers, not {number!r}")
    if not (given >= 1).all():
        raise ValueError(f"n_cells must be at least 1, but the smallest is {given.min()}")
    return given.astype(np.int64)


def aligned_numbers(
    n_cells: Any, perturbations: Sequence[str], contexts: Sequence[str], control: str
) -> NDArray[Any] | None:
    """Return the numbers of cells of the predicted labels; other labels are ignored.

    Parameters
    ----------
    n_cells
        A mapping from perturbations, a Series by perturbation (or by perturbation and context), a DataFrame
        (perturbations × contexts), or a DataArray with these dimensions. Anything else has no labels.
    perturbations, contexts
        The predicted ones, in order.
    control
        Label of the control cells.

    Returns
    -------
    ndarray or None
        Numbers (perturbation, context), with a single row or column if they do not depend on it; None without labels.

    Raises
    ------
    KeyError
        If a predicted perturbation or context has no number.
    ValueError
        If a DataArray has other dimensions, or a dimension without labels, or a label occurs twice.
    """
    if (numbers := _as_array(n_cells)) is None:
        return None
    wanted = {"perturbation": perturbations, "context": contexts}
    if other := [dim for dim in numbers.dims if dim not in wanted]:
        raise ValueError(f"n_cells has the dimension {other[0]!r}; only 'perturbation' and 'context' are allowed")
    for dim in numbers.dims:
        if dim not in numbers.coords:
            raise ValueError(f"n_cells has no labels along {dim!r}: assign them, or pass .to_numpy() to go by position")
        names = [label_text(name) for name in numbers[dim].to_numpy()]
        if dim == "perturbation":
            names = [canonical_label(name, control) for name in names]
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"n_cells names a {dim} more than once: {listed(repeated)}")
        position = {name: i for i, name in enumerate(names)}
        if missing := [name for name in wanted[str(dim)] if name not in position]:
            raise KeyError(f"n_cells has no number for {listed(missing)}; it has the {dim}s {listed(names)}")
        numbers = numbers.isel({dim: [position[name] for name in wanted[str(dim)]]})
    return numbers.expand_dims([dim for dim in wanted if dim not in numbers.dims]).transpose(*wanted).to_numpy()


def _as_array(n_cells: Any) -> xr.DataArray | None:
    """Return a table as an array with named dimensions, None if it has no labels."""
    import pandas as pd
    import xarray as xr

    if isinstance(n_cells, Mapping):
        n_cells = pd.Series(dict(n_cells))
    if isinstance(n_cells, pd.Series | pd.DataFrame):
        if n_cells.index.nlevels == 2:  # for example from groupby(["perturbation", "day"]).size()
            n_cells = n_cells.unstack()
        coords = {dim: list(labels) for dim, labels in zip(("perturbation", "context"), n_cells.axes, strict=False)}
        return xr.DataArray(n_cells.to_numpy(), coords, tuple(coords))
    return n_cells if isinstance(n_cells, xr.DataArray) else None
