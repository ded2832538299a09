"""A warning if a prediction is compared with training cells."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.labels import listed
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr


def warn_of_training_cells(training: TrainingGroups, observed: xr.Dataset) -> None:
    """Warn of perturbations with observed cells (from `observed_cells`) that are training cells.

    Warns
    -----
    UserWarning
        At the line that calls the caller. Such a comparison shows how well a model fits, not how well it predicts.
    """
    n_cells, counts = observed["n_cells"].to_numpy(), observed["counts"].to_numpy()
    labels, contexts = (observed[dim].to_numpy().tolist() for dim in ("perturbation", "context"))

    def is_same(p: int, c: int) -> bool:
        fitted = training.counts_of(labels[p], contexts[c])
        return bool(n_cells[p, c]) and fitted is not None and np.array_equal(counts[p, c], fitted)

    if same := [label for p, label in enumerate(labels) if any(is_same(p, c) for c in range(len(contexts)))]:
        warnings.warn(
            f"the cells of {listed(same)} are training cells. This comparison shows how well the model fits them, not "
            "how well it predicts. Hold them out of the training, as cross_validate does",
            UserWarning,
            stacklevel=3,
        )
