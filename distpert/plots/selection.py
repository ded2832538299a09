"""What of a prediction is plotted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from distpert.baselines.training import TrainingShares
from distpert.labels import canonical_label
from distpert.moments import MOMENTS
from distpert.predicted import Drawn, Predicted
from distpert.symbols import check_known

if TYPE_CHECKING:
    from distpert.histograms import Histograms

    Given = TypeVar("Given", bound=Predicted)


def check_moment(moment: str, known: Sequence[str] = MOMENTS) -> None:
    """Refuse what is no moment."""
    if moment not in known:
        raise ValueError(f"moment must be one of {', '.join(known)}, not {moment!r}")


def check_draws(prediction: Predicted) -> None:
    """Refuse what has no histograms, as conformal intervals."""
    if not isinstance(prediction, Drawn):
        raise TypeError(
            f"plot_histogram and plot_shift take a prediction of a fit or of a baseline, made by fit.predict(labels), "
            f"not a {type(prediction).__name__}; plot_moments takes conformal intervals too"
        )


def chosen_context(prediction: Predicted, context: str | None) -> str:
    """Give the context to plot, which must be named where there are several."""
    if context is None:
        if len(prediction.contexts) > 1:
            raise KeyError(f"say which context to plot: {', '.join(prediction.contexts)}")
        return prediction.contexts[0]
    check_known(str(context), prediction.contexts, "contexts")
    return str(context)


def group_name(perturbation: str, context: str, context_key: str | None) -> str:
    """Name a group in a title."""
    return f"{perturbation}, {context_key} {context}" if context_key else perturbation


def one_group(prediction: Given, perturbation: str, context: str | None) -> Given:
    """Take one perturbation in one context out of a prediction, with the same draws."""
    if not isinstance(perturbation, str):
        raise TypeError(f"one of the perturbations is asked for by its label, a str, not {perturbation!r}")
    perturbation = canonical_label(perturbation, prediction.training.control)
    check_known(perturbation, prediction.perturbations, "perturbations")
    context = chosen_context(prediction, context)
    return prediction._one_group(prediction.perturbations.index(perturbation), prediction.contexts.index(context))


def control_histograms(training: Histograms, context: str) -> NDArray[np.float64]:
    """Histograms (gene, bin) of the control cells of a context."""
    return TrainingShares(training).control[training.contexts.index(context)]
