"""Baselines that say the same of every perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distpert.baselines.predictor import LabelPredictor
from distpert.baselines.shares import TrainingShares, check_training, smooth
from distpert.embeddings.vectors import Embeddings, EmbeddingSources
from distpert.histograms.histograms import Histograms


@dataclass(frozen=True)
class ControlHistogram:
    r"""The control histogram of the context: perturbations do nothing (Ctrl Hist in Ramakrishnan et al. 2025).

    .. math:: \hat h_{pcgb} = \frac{n^\text{ctrl}_{cgb} + 1/B}{N^\text{ctrl}_c + 1}
    """

    name: ClassVar[str] = "control"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Take the controls of each context; see `Baseline.fit`."""
        embeddings = check_training(histograms, embeddings, fewest=0)
        shares = TrainingShares(histograms)
        return _constant(self.name, histograms, embeddings, smooth(shares.control, shares.n_control))


@dataclass(frozen=True)
class PooledHistogram:
    r"""The pooled histogram of all training perturbations of the context (Non-Ctrl Hist in Ramakrishnan et al. 2025).

    .. math:: \hat h_{pcgb} = \frac{\sum_q n_{qcgb} + 1/B}{\sum_q N_{qc} + 1}

    In a context of control cells alone, the mean over other contexts of the shift from control to pooled is added to
    the controls.
    """

    name: ClassVar[str] = "pooled"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Pool the perturbed cells of each context; see `Baseline.fit`."""
        embeddings = check_training(histograms, embeddings)
        return _constant(self.name, histograms, embeddings, TrainingShares(histograms).smoothed_pooled)


@dataclass(frozen=True)
class PooledMean:
    r"""The mean of all perturbed training cells of the context (Non-Ctrl Mean in Ramakrishnan et al. 2025).

    Predicts means alone: those of `PooledHistogram` before it is smoothed.
    """

    name: ClassVar[str] = "pooled_mean"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Average the perturbed cells of each context; see `Baseline.fit`."""
        embeddings = check_training(histograms, embeddings)
        means = (TrainingShares(histograms).pooled * histograms.centers.to_numpy()).sum(axis=-1)
        return _constant(self.name, histograms, embeddings, means, "means")


def _constant(
    name: str,
    histograms: Histograms,
    embeddings: Embeddings,
    values: NDArray[np.float64],
    what: Literal["probs", "means"] = "probs",
) -> LabelPredictor:
    return LabelPredictor(name, histograms, embeddings, partial(_whatever, values), what)


def _whatever(values: NDArray[np.float64], label: str) -> NDArray[np.float64]:
    return values
