"""What of a prediction is plotted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distpert.labels import canonical_label
from distpert.moments import MOMENTS
from distpert.symbols import nearest_symbols

if TYPE_CHECKING:
    from distpert.prediction import Prediction


def check_known(name: str, known: Sequence[str], what: str) -> None:
    """Refuse a name that is none of those predicted."""
    if name not in known:
        near = nearest_symbols(name, known)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise KeyError(f"{name!r} is none of the {what} predicted{hint}")


def check_moment(moment: str, known: Sequence[str] = MOMENTS) -> None:
    """Refuse what is no moment."""
    if moment not in known:
        raise ValueError(f"moment must be one of {', '.join(known)}, not {moment!r}")


def chosen_context(prediction: Prediction, context: str | None) -> str:
    """Give the context to plot, which must be named where there are several."""
    if context is None:
        if len(prediction.contexts) > 1:
            raise KeyError(f"say which context to plot: {', '.join(prediction.contexts)}")
        return prediction.contexts[0]
    check_known(str(context), prediction.contexts, "contexts")
    return str(context)


def one_group(prediction: Prediction, perturbation: str, context: str | None) -> Prediction:
    """Predict one perturbation in one context, with the same draws: the same seed gives them again."""
    perturbation = canonical_label(perturbation, prediction.fit.histograms.control)
    check_known(perturbation, prediction.perturbations, "perturbations")
    context = chosen_context(prediction, context)
    return prediction.fit.predict(
        [perturbation],
        context=context if prediction.fit.histograms.context_key else None,
        num_draws=prediction.num_draws,
        seed=prediction.seed,
        progress_bar=False,
    )
