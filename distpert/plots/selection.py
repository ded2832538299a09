"""Selection and names of the plotted moments and groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS
from distpert.training.groups import TrainingGroups


def check_moment(moment: str, known: Sequence[str] = MOMENTS) -> None:
    """Refuse an unknown moment.

    Raises
    ------
    ValueError
        If it is not among the known moments.
    """
    if moment not in known:
        raise ValueError(f"moment must be one of {', '.join(known)}, not {moment!r}")


def group_name(perturbation: str, context: str, context_key: str | None) -> str:
    """Return the name of a group for a title."""
    return f"{perturbation}, {context_key} {context}" if context_key else perturbation


def control_histograms(training: Histograms, context: str) -> NDArray[np.float64]:
    """Histograms (gene, bin) of the control cells of a context."""
    groups = TrainingGroups(training)
    return groups.control[groups.contexts.index(context)]
