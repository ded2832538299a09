"""Numbers of cells that come with labels, put in the order of what is predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distpert.labels import canonical_label, listed

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


def aligned_numbers(
    n_cells: Any, perturbations: Sequence[str], contexts: Sequence[str], control: str
) -> NDArray[Any] | None:
    """Numbers of cells by their labels; what else has labels is left out.

    Parameters
    ----------
    n_cells
        A mapping from perturbations, a Series by perturbation (or by perturbation and context), a DataFrame
        (perturbations × contexts), or a DataArray with these dimensions. Anything else has no labels.
    perturbations, contexts
        What is predicted, in order.
    control
        Label of the control cells.

    Returns
    -------
    ndarray or None
        Numbers (perturbation, context), with one row or column where they do not depend on it; None without labels.

    Raises
    ------
    KeyError
        If something that is predicted has no number.
    ValueError
        If a DataArray has other dimensions, or one without labels, or a label is there twice.
    """
    if (numbers := _as_array(n_cells)) is None:
        return None
    wanted = {"perturbation": perturbations, "context": contexts}
    if other := [dim for dim in numbers.dims if dim not in wanted]:
        raise ValueError(f"n_cells has the dimension {other[0]!r}; numbers are by 'perturbation' and 'context' alone")
    for dim in numbers.dims:
        if dim not in numbers.coords:
            raise ValueError(f"n_cells has no labels along {dim!r}: assign them, or pass .to_numpy() to go by position")
        names = [str(name).strip() for name in numbers[dim].to_numpy()]
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
    """Give the dimensions of a table their names."""
    import pandas as pd
    import xarray as xr

    if isinstance(n_cells, Mapping):
        n_cells = pd.Series(dict(n_cells))
    if isinstance(n_cells, pd.Series | pd.DataFrame):
        if n_cells.index.nlevels == 2:  # as groupby(["perturbation", "day"]).size() has it
            n_cells = n_cells.unstack()
        coords = {dim: list(labels) for dim, labels in zip(("perturbation", "context"), n_cells.axes, strict=False)}
        return xr.DataArray(n_cells.to_numpy(), coords, tuple(coords))
    return n_cells if isinstance(n_cells, xr.DataArray) else None
