"""Labels and contexts that a fit or a baseline is to predict, checked before any work."""

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
    """Check the labels of perturbations to predict, and return them with their genes in sorted order.

    Parameters
    ----------
    perturbations : str or sequence of str
        A label or labels ``A`` or ``A+B``, genes in any order.
    training : Histograms
        The counts that the model was fitted to. Their perturbations can be predicted without an embedding.
    embeddings : Embeddings
        Embeddings of all genes that can be predicted.

    Returns
    -------
    tuple of str

    Raises
    ------
    KeyError
        If a gene has no embedding; names the nearest symbols that have one.
    TypeError
        If a label is not a str.
    ValueError
        If there is no label, a label occurs twice or names a gene twice, or a label is that of the controls.

    See Also
    --------
    distpert.baselines.requested_contexts

    Examples
    --------
    >>> requested_labels(["SOX2+NANOG", "SALL4"], training, embeddings)  # doctest: +SKIP
    ('NANOG+SOX2', 'SALL4')
    """
    if not isinstance(perturbations, str | Iterable):
        raise TypeError(f"perturbations are labels, 'A' or ['A', 'B+C'], not {perturbations!r}")
    given = [perturbations] if isinstance(perturbations, str) else perturbations
    labels = canonical_labels(given, training.control)
    if not labels:
        raise ValueError("no perturbation to predict")
    if training.control in labels:
        raise ValueError(
            f"{training.control!r} labels the controls, which are observed, not predicted: see fit.control and "
            "fit.control_moments()"
        )
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"named more than once (the order of genes does not matter): {listed(repeated)}")
    seen = set(training.perturbations)
    embeddings.of([label for label in labels if label not in seen])  # raises a KeyError that names the nearest symbols
    return tuple(labels)


def requested_contexts(context: str | Sequence[str] | None, training: Histograms) -> tuple[str, ...]:
    """Check the contexts to predict for, and return their names.

    Parameters
    ----------
    context : str, sequence of str, or None
        A context, contexts, or None for all.
    training : Histograms
        The counts that the model was fitted to.

    Returns
    -------
    tuple of str

    Raises
    ------
    KeyError
        If a context is unknown, or the training has no contexts.
    ValueError
        If there is no context, or one is named twice.

    See Also
    --------
    distpert.baselines.requested_labels

    Examples
    --------
    >>> requested_contexts("5", training)  # doctest: +SKIP
    ('5',)
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
