"""What of a prediction is plotted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS
from distpert.training.groups import TrainingGroups


def check_moment(moment: str, known: Sequence[str] = MOMENTS) -> None:
    """Refuse what is not a moment.

    Raises
    ------
    ValueError
        If it is none of those known.
    """
    if moment not in known:
        raise ValueError(f"moment must be one of {', '.join(known)}, not {moment!r}")


def group_name(perturbation: str, context: str, context_key: str | None) -> str:
    """Name a group in a title."""
    return f"{perturbation}, {context_key} {context}" if context_key else perturbation


def control_histograms(training: Histograms, context: str) -> NDArray[np.float64]:
    """Histograms (gene, bin) of the control cells of a context."""
    groups = TrainingGroups(training)
    return groups.control[groups.contexts.index(context)]
