"""Checks before any long computation: controls, and perturbations with an embedding."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain

import numpy as np

from distpert._shared.labels import listed, spelling_hint
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.training.groups import TrainingGroups

FEWEST_PERTURBATIONS = 3


def check_controls(histograms: Histograms) -> None:
    """Refuse histograms without controls, such as those of held-out cells.

    Raises
    ------
    ValueError
        If a context has no control cells.
    """
    groups = TrainingGroups(histograms)
    with_controls = {groups.contexts[context] for context in groups.context[groups.is_control]}
    if without := sorted(set(groups.contexts) - with_controls):
        where = f" in {listed(without)}" if histograms.context_key else ""
        raise ValueError(f"the histograms have no control cells{where}. Count them together with control cells")


def check_number(perturbations: Sequence[str], fewest: int = FEWEST_PERTURBATIONS) -> None:
    """Refuse too few perturbations.

    Raises
    ------
    ValueError
        If there are fewer than `fewest`.
    """
    if len(perturbations) < fewest:
        raise ValueError(f"the training has {len(perturbations)} perturbations; at least {fewest} are needed")


def check_embedded(perturbations: Sequence[str], embeddings: Embeddings, *, others: str, stacklevel: int = 3) -> None:
    """Refuse too few perturbations with an embedding, and warn of perturbations without one, or not from all sources.

    Parameters
    ----------
    perturbations
        The training perturbations.
    embeddings
        Embeddings of genes.
    others
        What happens to perturbations without an embedding, for the warning.
    stacklevel
        Of the warning. By default it names the line that calls the caller.

    Raises
    ------
    ValueError
        If fewer than 3 perturbations have an embedding.

    Warns
    -----
    UserWarning
        If perturbations have no embedding, or a source lacks some of them. The warning names them.
    """
    check_number(perturbations)
    missing = embeddings.missing(perturbations)
    hint = spelling_hint(chain.from_iterable(missing.values()), embeddings.genes)
    usable = len(perturbations) - len(missing)
    if usable < FEWEST_PERTURBATIONS:
        genes = listed(dict.fromkeys(gene for genes in missing.values() for gene in genes))
        raise ValueError(
            f"{usable} of {len(perturbations)} training perturbations have an embedding; at least "
            f"{FEWEST_PERTURBATIONS} are needed. Genes without one: {genes}. The embeddings are of "
            f"{listed(embeddings.genes, 5)}: do they use the same symbols?{hint}"
        )
    told = []
    if missing:
        told.append(f"no embedding for {listed(missing)}: {others}{hint and '.' + hint}")
    known = [label for label in perturbations if label not in missing]
    lacking = ~embeddings.covers(known)
    if lacking.any():
        each = [
            f"{name} lacks {column.sum()} ({listed([known[i] for i in np.flatnonzero(column)], 3)})"
            for name, column in zip(embeddings.source_names, lacking.T, strict=True)
            if column.any()
        ]
        told.append(
            f"of {len(known)} perturbations with an embedding, {'; '.join(each)}. Their predictions rest on the other "
            "sources"
        )
    if told:
        warnings.warn(". ".join(told), UserWarning, stacklevel=stacklevel)
