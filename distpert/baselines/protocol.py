"""What a baseline is, and so how to add one.

Write a frozen dataclass of the method's settings with a ``name`` and a ``fit``, and let ``fit`` return a
`LabelPredictor`, or an object of your own with a ``predict``. Nothing needs to be inherited or registered:
`distpert.cross_validate` takes such an object as it stands. `distpert.baselines.constant` shows it in a page.

- ``fit`` sees the training counts alone, already with the bins that predictions have. Start it with
  ``embeddings = check_training(histograms, embeddings)``, which takes embeddings in any form.
- A ``predict`` of your own hands `requested_labels` and `requested_contexts` what it was asked for, so that mistakes
  are told as `Fit.predict` tells them, and returns a `PointPrediction` or, for a method that predicts means alone, a
  `MeanPrediction`.
- The same seed gives the same fit; a prediction must not depend on what else is predicted with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.predictions.base import MomentPrediction


@runtime_checkable
class Predictor(Protocol):
    """A fitted baseline."""

    def predict(
        self, perturbations: str | Sequence[str], *, context: str | Sequence[str] | None = None, seed: int = 0
    ) -> MomentPrediction:
        """Predict the histograms, or the means, of all genes under some perturbations.

        Parameters
        ----------
        perturbations
            Labels ``A`` or ``A+B`` (in any order) that were in training or whose genes have embeddings.
        context
            Context or contexts to predict for; by default all.
        seed
            Of the replicates that the prediction draws when it is asked for so many cells.

        Returns
        -------
        PointPrediction or MeanPrediction

        Raises
        ------
        KeyError
            If a gene has no embedding, or a context is unknown.
        ValueError
            If nothing is to be predicted, a label or context is named twice, or a label is that of the controls.
        """
        ...


@runtime_checkable
class Baseline(Protocol):
    """A method and its settings."""

    @property
    def name(self) -> str:
        """Short name, by which results are told apart."""
        ...

    def fit(self, histograms: Histograms, embeddings: Embeddings, *, seed: int = 0) -> Predictor:
        """Learn from the cells of training perturbations and controls.

        Parameters
        ----------
        histograms
            Counts of the training groups, with control groups in every context.
        embeddings
            Of every gene that can be predicted; perturbations in training may lack one. `distpert.cross_validate` gives
            `Embeddings`; the baselines here take any form that `distpert.fit` does, but for keys of an AnnData.
        seed
            The same seed gives the same fit.

        Returns
        -------
        Predictor

        Raises
        ------
        TypeError
            If the histograms are none, or the embeddings are of another type.
        ValueError
            If a context has no control cells, or the training perturbations are too few for the method.
        """
        ...
