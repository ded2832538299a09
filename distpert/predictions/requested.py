"""What is asked of a fitted model, or of a baseline: labels and contexts, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.labels import canonical_labels, label_text, listed
from distpert._shared.symbols import nearest_symbols
from distpert.embeddings.vectors import Embeddings

if TYPE_CHECKING:
    from distpert.histograms.histograms import Histograms


def requested_labels(
    perturbations: str | Sequence[str], training: Histograms, embeddings: Embeddings
) -> tuple[str, ...]:
    """Perturbations to predict, each in the one way it is written.

    Parameters
    ----------
    perturbations
        A label or labels ``A`` or ``A+B``, genes in any order.
    training
        What the model was fitted to. Its perturbations can be asked for without an embedding.
    embeddings
        Of every gene that can be predicted.

    Returns
    -------
    tuple of str

    Raises
    ------
    KeyError
        If a gene has no embedding; names the nearest symbols that have one.
    TypeError
        If a label is no string.
    ValueError
        If there is none, one is named twice or names a gene twice, or one is that of the controls.
    """
    if not isinstance(perturbations, str | Iterable):
        raise TypeError(f"perturbations are labels, 'A' or ['A', 'B+C'], not {perturbations!r}")
    given = [perturbations] if isinstance(perturbations, str) else perturbations
    labels = canonical_labels(given, training.control)
    if not labels:
        raise ValueError("no perturbation to predict")
    if training.control in labels:
        raise ValueError(
            f"{training.control!r} labels the controls, whose histograms were observed: see fit.control and "
            "fit.control_moments()"
        )
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"named more than once (the order of genes does not matter): {listed(repeated)}")
    seen = set(training.perturbations)
    embeddings.of([label for label in labels if label not in seen])  # raises a KeyError that helps
    return tuple(labels)


def requested_contexts(context: str | Sequence[str] | None, training: Histograms) -> tuple[str, ...]:
    """Contexts to predict for.

    Parameters
    ----------
    context
        A context, contexts, or None for all.
    training
        What the model was fitted to.

    Returns
    -------
    tuple of str

    Raises
    ------
    KeyError
        If a context is unknown, or the training has none.
    ValueError
        If there is none, or one is named twice.
    """
    if context is None:
        return training.contexts
    chosen = [label_text(context)] if np.isscalar(context) else [label_text(name) for name in context]
    if not training.context_key:
        raise KeyError(f"the fit has no contexts, so none can be chosen: {listed(chosen)}; see fit(context_key=)")
    if unknown := [name for name in chosen if name not in training.contexts]:
        near = nearest_symbols(unknown[0], training.contexts)
        raise KeyError(
            f"no such {training.context_key}: {listed(unknown)}. There are {listed(training.contexts)}"
            + (f"; nearest {near[0]}" if near else "")
        )
    if not chosen:
        raise ValueError("no context to predict for")
    if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ValueError(f"{training.context_key} named more than once: {listed(repeated)}")
    return tuple(chosen)
