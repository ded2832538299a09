"""The perturbations that each fold of a cross-validation holds out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from distpert._shared.arguments import check_count, check_seed
from distpert._shared.labels import CONTROL_LABELS, canonical_label, canonical_labels, genes_of, listed

UNSEEN_SINGLE = "unseen_single"


@dataclass(frozen=True)
class Fold:
    """One fold: its held-out genes and labels.

    Attributes
    ----------
    genes : tuple of str
        Genes that no training label has.
    held_out : mapping
        Category of each held-out label: ``unseen_single``, or ``combo_seen0``, ``combo_seen1``, ``combo_seen2`` by how
        many genes of a combination occur in training labels.
    """

    genes: tuple[str, ...]
    held_out: Mapping[str, str]

    def trains_on(self, label: str) -> bool:
        """Whether a label may be in training: neither the label nor one of its genes is held out."""
        label = canonical_label(label, CONTROL_LABELS[0])  # B+A is held out where A+B is
        return label not in self.held_out and not set(genes_of(label)).intersection(self.genes)


@dataclass(frozen=True, repr=False)
class Splits:
    """The folds of a cross-validation; made by `split_perturbations`.

    Attributes
    ----------
    folds : tuple of Fold
        For each fold its ``genes``, which no training label has, and ``held_out``, a mapping from held-out labels to
        their categories. ``fold.trains_on(label)`` says whether a label may be in training.
    seed : int
        Seed of the random folds.

    See Also
    --------
    distpert.split_perturbations, distpert.cross_validate

    Examples
    --------
    >>> splits = split_perturbations(["A", "B", "C", "A+B"], n_folds=3)
    >>> splits.folds[0].genes, splits.folds[0].held_out
    (('C',), {'A+B': 'combo_seen2', 'C': 'unseen_single'})
    >>> splits.folds[0].trains_on("A"), splits.folds[1].trains_on("A")
    (True, False)
    """

    folds: tuple[Fold, ...]
    seed: int

    def __repr__(self) -> str:
        categories = self.categories
        n_labels = len({label for fold in self.folds for label in fold.held_out})
        rows = [("fold", *categories)]
        for i, fold in enumerate(self.folds):
            count = Counter(fold.held_out.values())
            rows.append((str(i), *(str(count[category]) for category in categories)))
        lines = ["".join(f"{entry:>15}" for entry in row).removeprefix(" " * 9) for row in rows]
        return "\n".join([f"Splits: {len(self.folds)} folds of {n_labels:,} perturbations, seed {self.seed}", *lines])

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of held-out labels, single genes first."""
        return tuple(sorted({c for fold in self.folds for c in fold.held_out.values()}, key=lambda c: (c[0] != "u", c)))

    def to_json(self) -> str:
        """Return the splits as text that `from_json` can read.

        Examples
        --------
        >>> text = split_perturbations(["A", "B", "C"], n_folds=3).to_json()
        >>> Splits.from_json(text).seed
        0
        """
        folds = [{"genes": fold.genes, "held_out": dict(fold.held_out)} for fold in self.folds]
        return json.dumps({"seed": self.seed, "folds": folds}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Splits:
        """Read what `to_json` wrote.

        Parameters
        ----------
        text : str
            The text.

        Returns
        -------
        Splits

        Raises
        ------
        ValueError
            If the text was not written by `to_json`.

        Examples
        --------
        >>> splits = split_perturbations(["A", "B", "C"], n_folds=3)
        >>> Splits.from_json(splits.to_json()) == splits
        True
        """
        try:
            facts = json.loads(text)
            folds = tuple(Fold(tuple(fold["genes"]), dict(fold["held_out"])) for fold in facts["folds"])
            return cls(folds, facts["seed"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("this text has no splits. Pass the text that Splits.to_json returned") from error


def split_perturbations(
    labels: Iterable[str],
    n_folds: int = 9,
    *,
    control: str = "control",
    seed: int = 0,
    training_only: Iterable[str] = (),
) -> Splits:
    """Split perturbations into folds in which the held-out genes are unseen.

    The genes of all labels are split at random into folds of equal size. A fold holds out every label, single or
    combination, that has one of its genes. None of these genes occurs in its training labels. The fold also holds out
    one part of a second, independent partition of the combinations, to test combinations of genes that are all seen.
    A combination is therefore held out in several folds. Its category in each fold is named as in GEARS [1]_.

    Parameters
    ----------
    labels : iterable of str
        Labels ``A``, ``A+B`` as in the data, with or without repeats: ``B+A`` is ``A+B`` and ``A+ctrl`` is ``A``.
        Labels of control cells are ignored.
    n_folds : int
        Number of folds, at least 2. With as many folds as genes, each fold holds out one gene.
    control : str
        Label of the control cells. The usual three (``control``, ``ctrl``, ``non-targeting``) are recognized without
        it.
    seed : int
        The same seed gives the same folds.
    training_only : iterable of str
        Further labels that are never held out. A fold trains on those that have none of its genes.

    Returns
    -------
    Splits

    Raises
    ------
    TypeError
        If a label is not a string.
    ValueError
        If there are fewer than 2 folds, fewer labels or genes than folds, or a fold would leave nothing to train on.

    See Also
    --------
    distpert.cross_validate

    References
    ----------
    .. [1] Roohani, Huang & Leskovec 2024, Nature Biotechnology 42, 927 (GEARS).

    Examples
    --------
    >>> split_perturbations(["A", "B", "C", "A+B"], n_folds=3)
    Splits: 3 folds of 4 perturbations, seed 0
      fold  unseen_single    combo_seen1    combo_seen2
         0              1              0              1
         1              1              1              0
         2              1              1              0
    """
    labels, training_only = (_perturbations(given, control) for given in (labels, training_only))
    genes = sorted({gene for label in labels for gene in genes_of(label)})
    combinations = [label for label in labels if _is_combination(label)]
    n_folds, seed = check_count("n_folds", n_folds, 2), check_seed(seed)
    fewest, what = min((len(labels), "perturbations"), (len(genes), "perturbed genes"))
    if fewest < n_folds:
        raise ValueError(f"{fewest} {what} cannot be split into {n_folds} folds: {listed(labels)}. Lower n_folds")
    rng = np.random.default_rng(seed)
    gene_parts = np.array_split(rng.permutation(genes), n_folds)
    combination_parts = np.array_split(rng.permutation(np.array(combinations, dtype=str)), n_folds)
    folds = []
    for i, (held_genes, held_combinations) in enumerate(zip(gene_parts, combination_parts, strict=True)):
        hidden, also = set(held_genes.tolist()), set(held_combinations.tolist())
        held_out = [label for label in labels if label in also or hidden.intersection(genes_of(label))]
        training = set(labels).difference(held_out)
        training.update(label for label in training_only if not hidden.intersection(genes_of(label)))
        if not training:
            raise ValueError(
                f"fold {i} would leave nothing to train on, as all perturbations share genes. Raise n_folds, or add "
                "perturbations of other genes"
            )
        seen = {gene for label in training for gene in genes_of(label)}
        folds.append(Fold(tuple(sorted(hidden)), {label: _category(label, seen) for label in held_out}))
    return Splits(tuple(folds), seed)


def _perturbations(labels: Iterable[str], control: str) -> list[str]:
    """Labels in canonical form, each once and sorted, without controls."""
    given = [labels] if isinstance(labels, str) else labels
    return sorted(set(canonical_labels(given, control)) - {control, *CONTROL_LABELS})


def _is_combination(label: str) -> bool:
    return len(set(genes_of(label))) > 1


def _category(label: str, seen: set[str]) -> str:
    return f"combo_seen{len(seen.intersection(genes_of(label)))}" if _is_combination(label) else UNSEEN_SINGLE
