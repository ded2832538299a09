"""Baselines that predict the same for every perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distpert.baselines.predictor import LabelPredictor
from distpert.baselines.shares import TrainingShares, check_training, smooth
from distpert.embeddings.sources import EmbeddingSources
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms


@dataclass(frozen=True)
class ControlHistogram:
    r"""The control histogram of the context, as if perturbations did nothing (Ctrl Hist in Ramakrishnan et al. 2025).

    .. math:: \hat h_{pcgb} = \frac{n^\text{ctrl}_{cgb} + 1/B}{N^\text{ctrl}_c + 1}

    with n the control cells of context c in bin b of gene g, N all control cells of the context, and B bins.

    See Also
    --------
    distpert.baselines.PooledHistogram

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> distpert.baselines.ControlHistogram().fit(histograms, embeddings).predict("NANOG")  # doctest: +SKIP
    """

    name: ClassVar[str] = "control"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Take the control cells of each context; see `Baseline.fit`.

        Examples
        --------
        >>> control = distpert.baselines.ControlHistogram().fit(histograms, embeddings)  # doctest: +SKIP
        >>> control.predict(["NANOG", "SOX2"], context="5").histogram()  # doctest: +SKIP
        """
        embeddings = check_training(histograms, embeddings, fewest=0)
        shares = TrainingShares(histograms)
        return _constant(self.name, histograms, embeddings, smooth(shares.control, shares.n_control))


@dataclass(frozen=True)
class PooledHistogram:
    r"""The pooled histogram of all training perturbations of the context (Non-Ctrl Hist in Ramakrishnan et al. 2025).

    .. math:: \hat h_{pcgb} = \frac{\sum_q n_{qcgb} + 1/B}{\sum_q N_{qc} + 1}

    with n and N as in `ControlHistogram`, for training perturbation q. A context may have only control cells. It then
    gets its control histogram plus the shift from control to pooled, averaged over the other contexts.

    See Also
    --------
    distpert.baselines.ControlHistogram, distpert.baselines.PooledMean

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> distpert.baselines.PooledHistogram().fit(histograms, embeddings).predict("NANOG")  # doctest: +SKIP
    """

    name: ClassVar[str] = "pooled"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Pool the perturbed cells of each context; see `Baseline.fit`.

        Examples
        --------
        >>> pooled = distpert.baselines.PooledHistogram().fit(histograms, embeddings)  # doctest: +SKIP
        >>> pooled.predict(["NANOG", "SOX2"], context="5").histogram()  # doctest: +SKIP
        """
        embeddings = check_training(histograms, embeddings)
        return _constant(self.name, histograms, embeddings, TrainingShares(histograms).smoothed_pooled)


@dataclass(frozen=True)
class PooledMean:
    r"""The mean of all perturbed training cells of the context (Non-Ctrl Mean in Ramakrishnan et al. 2025).

    Predicts means only: the means of the histograms of `PooledHistogram` before smoothing.

    See Also
    --------
    distpert.baselines.PooledHistogram, distpert.baselines.Ridge

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> distpert.baselines.PooledMean().fit(histograms, embeddings).predict("NANOG")  # doctest: +SKIP
    """

    name: ClassVar[str] = "pooled_mean"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Average the perturbed cells of each context; see `Baseline.fit`.

        Examples
        --------
        >>> pooled = distpert.baselines.PooledMean().fit(histograms, embeddings)  # doctest: +SKIP
        >>> pooled.predict(["NANOG", "SOX2"], context="5").moments()["mean"]  # doctest: +SKIP
        """
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
