"""A fitted baseline that predicts one perturbation at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.predictions.point import MeanPrediction, PointPrediction
from distpert.predictions.requested import requested_contexts, requested_labels


@dataclass(frozen=True, eq=False, repr=False)
class LabelPredictor:
    """A fitted baseline that predicts each label by itself, whatever else is predicted with it.

    Attributes
    ----------
    name : str
        Name of the baseline.
    training : Histograms
        The counts that it was fitted to.
    embeddings : Embeddings
        Embeddings of every gene that can be predicted.
    of_label : callable
        Function from a label, its genes sorted, to the prediction in all contexts of the training: probabilities
        (context, gene, bin) or means (context, gene).
    what : {"probs", "means"}
        Which of the two ``of_label`` returns.

    See Also
    --------
    distpert.baselines.Predictor, distpert.baselines.PointPrediction, distpert.baselines.MeanPrediction

    Examples
    --------
    >>> pooled = distpert.baselines.TrainingShares(histograms).smoothed_pooled  # doctest: +SKIP
    >>> mine = distpert.baselines.LabelPredictor(  # doctest: +SKIP
    ...     "mine", histograms, embeddings, lambda label: pooled
    ... )
    >>> mine.predict("NANOG")  # doctest: +SKIP
    """

    name: str
    training: Histograms
    embeddings: Embeddings
    of_label: Callable[[str], NDArray[np.float64]]
    what: Literal["probs", "means"] = "probs"

    def __repr__(self) -> str:
        predicts = "histograms" if self.what == "probs" else "means"
        return (
            f"Fitted {self.name!r}: predicts {predicts} of {len(self.training.genes):,} genes from "
            f"{len(self.training.perturbations):,} training perturbations"
        )

    def predict(
        self, perturbations: str | Sequence[str], *, context: str | Sequence[str] | None = None, seed: int = 0
    ) -> PointPrediction | MeanPrediction:
        """Predict histograms or means of all genes; see `Predictor.predict`.

        Examples
        --------
        >>> predictor = distpert.baselines.PooledHistogram().fit(histograms, embeddings)  # doctest: +SKIP
        >>> predictor.predict(["NANOG", "NANOG+SOX2"], context="5").histogram()  # doctest: +SKIP
        """
        labels = requested_labels(perturbations, self.training, self.embeddings)
        contexts = requested_contexts(context, self.training)
        rows = [self.training.contexts.index(name) for name in contexts]
        values = np.stack([self.of_label(label)[rows] for label in labels])
        make = PointPrediction if self.what == "probs" else MeanPrediction
        return make(self.training, labels, contexts, values, seed=seed)
