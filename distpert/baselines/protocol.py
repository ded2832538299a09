"""The protocol of baselines, and how to add one.

Write a frozen dataclass with the settings of the method, a ``name`` and a ``fit``. Let ``fit`` return a
`LabelPredictor`, or an object of your own with a ``predict``. You need not inherit from a class or register anything:
`distpert.cross_validate` takes the object. For a short example see `distpert.baselines.constant`.

- ``fit`` gets only the training counts, already in the bins of the predictions. Start it with
  ``embeddings = check_training(histograms, embeddings)``, which takes embeddings in any form.
- A ``predict`` of your own passes its arguments to `requested_labels` and `requested_contexts`. Wrong labels and
  contexts then raise the same errors as in `Fit.predict`. It returns a `PointPrediction`, a `MeanPrediction` if the
  method predicts means only, or a prediction of your own.
- The same seed gives the same fit. A prediction must not depend on what else is predicted with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.predictions.moment_prediction import MomentPrediction


@runtime_checkable
class Predictor(Protocol):
    """A fitted baseline: any object with this ``predict``.

    See Also
    --------
    distpert.baselines.LabelPredictor : the usual implementation.

    Examples
    --------
    >>> predictor = distpert.baselines.PooledHistogram().fit(histograms, embeddings)  # doctest: +SKIP
    >>> isinstance(predictor, distpert.baselines.Predictor)  # doctest: +SKIP
    True
    """

    def predict(
        self, perturbations: str | Sequence[str], *, context: str | Sequence[str] | None = None, seed: int = 0
    ) -> MomentPrediction:
        """Predict the histograms, or the means, of all genes under some perturbations.

        Parameters
        ----------
        perturbations : str or sequence of str
            Labels ``A`` or ``A+B`` (genes in any order). Each was in training, or all its genes have embeddings.
        context : str or sequence of str, optional
            Context or contexts to predict for; by default all.
        seed : int
            Seed of the replicates that the prediction draws when a number of cells is given.

        Returns
        -------
        MomentPrediction
            A `PointPrediction`, a `MeanPrediction`, or a subclass of your own of `distpert.HistogramPrediction` or
            `distpert.MomentPrediction`.

        Raises
        ------
        KeyError
            If a gene has no embedding, or a context is unknown.
        ValueError
            If nothing is to be predicted, a label or context is named twice, or a label is that of the controls.

        Examples
        --------
        >>> prediction = predictor.predict(["NANOG", "NANOG+SOX2"])  # doctest: +SKIP
        """
        ...


@runtime_checkable
class Baseline(Protocol):
    """A method and its settings: any object with this ``name`` and ``fit``.

    See Also
    --------
    distpert.baselines.Predictor : what a fit returns.
    distpert.baselines.BASELINES : the baselines of distpert, by name.
    distpert.cross_validate : compares baselines with the model.

    Examples
    --------
    >>> isinstance(distpert.baselines.PooledHistogram(), distpert.baselines.Baseline)  # doctest: +SKIP
    True
    """

    @property
    def name(self) -> str:
        """Short name that identifies its results."""
        ...

    def fit(self, histograms: Histograms, embeddings: Embeddings, *, seed: int = 0) -> Predictor:
        """Learn from the cells of training perturbations and controls.

        Parameters
        ----------
        histograms : Histograms
            Counts of the training perturbations, with control cells in every context.
        embeddings : Embeddings
            Embeddings of every gene that can be predicted; training perturbations may lack one.
            `distpert.cross_validate` passes `Embeddings`. The baselines of distpert take every form that `distpert.fit`
            takes, except keys of an AnnData.
        seed : int
            The same seed gives the same fit.

        Returns
        -------
        Predictor

        Raises
        ------
        TypeError
            If ``histograms`` are not `Histograms`, or the embeddings are of another type.
        ValueError
            If a context has no control cells, or the training perturbations are too few for the method.

        Examples
        --------
        >>> histograms = distpert.count_histograms(adata, context_key="day")  # doctest: +SKIP
        >>> predictor = distpert.baselines.PooledHistogram().fit(histograms, embeddings)  # doctest: +SKIP
        """
        ...
