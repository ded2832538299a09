"""Progress of passes over the expression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distpert.histograms.streams import n_values


@contextmanager
def counting_bar(matrix: Any, what: str, shown: bool) -> Iterator[Callable[[int], object] | None]:
    """Show a progress bar with values per second; yields its function to advance, None if it is not shown."""
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=n_values(matrix), desc=what, unit=" values", unit_scale=True) as bar:
        yield bar.update
