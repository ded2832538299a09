"""A baseline that adds the shifts of single genes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.baselines.predictor import LabelPredictor
from distpert.baselines.shares import TrainingShares, add_shift, check_training, stand_in
from distpert.embeddings.sources import EmbeddingSources
from distpert.histograms.histograms import Histograms
from distpert.predictions.draws import softmax

PRIOR_CELLS = {"probability": 50.0, "logit": 200.0}


@dataclass(frozen=True)
class Additive:
    r"""Control histogram plus the shift of each perturbed gene, as seen where only that gene was perturbed.

    On the scale of probabilities, with s the bin shares where gene a alone was perturbed and c those of control,

    .. math::
        p = \Big[c + \sum_{a} r_a (s_a - c)\Big]_+ \Big/ \sum_b [\ldots]_+, \qquad
        \hat h = \frac{m\,p + A\,q}{m + A}

    Here r is the part of a shift that does not come from the sampling of cells. It is estimated for each measured gene
    from the CDFs S and C, in the manner of James & Stein (1961):

    .. math::
        r = \bigg[1 - \frac{\sum_b \frac{S_b (1 - S_b)}{N_s - 1} + \frac{C_b (1 - C_b)}{N_c - 1}}
                           {\sum_b (S_b - C_b)^2}\bigg]_+

    q is the pooled histogram (`PooledHistogram`), and m the smallest number of cells behind any of the shifts. On the
    scale of logits,

    .. math:: \hat h \propto c \prod_a \frac{(N_a s_a + A c) / (N_a + A)}{c}

    with c smoothed as in the model. A gene that was not perturbed alone in training gets the mean shift of the genes
    that were.

    Parameters
    ----------
    scale : {"probability", "logit"}
        Scale on which shifts are added. Probabilities did better on pairs of genes that were both seen alone.
    shrink : bool
        Whether shifts of probabilities are multiplied by r. ``shrink=False`` with ``prior_cells=1`` is the plain sum.
    prior_cells : float, optional
        A, above 0 to keep every bin possible; by default 50 for probabilities and 200 for logits.

    Raises
    ------
    ValueError
        If the scale is unknown, or ``prior_cells`` is not above 0.

    See Also
    --------
    distpert.baselines.PooledHistogram, distpert.baselines.TrainingShares

    References
    ----------
    Ahlmann-Eltze, Huber & Anders (2025), Nature Methods, where deep networks do not beat the plain sum of mean shifts.

    Examples
    --------
    >>> additive = distpert.baselines.Additive().fit(histograms, embeddings)  # doctest: +SKIP
    >>> additive.predict("NANOG+SOX2").histogram()  # doctest: +SKIP
    """

    name: ClassVar[str] = "additive"
    scale: Literal["probability", "logit"] = "probability"
    shrink: bool = True
    prior_cells: float | None = None

    def __post_init__(self) -> None:
        if self.scale not in PRIOR_CELLS:
            raise ValueError(f"scale must be 'probability' or 'logit', not {self.scale!r}")
        if self.prior_cells is not None and not (0 < self.prior_cells < np.inf):
            raise ValueError(f"prior_cells must be a number above 0, not {self.prior_cells}")

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Collect the shifts of single-gene perturbations; see `Baseline.fit`.

        Raises
        ------
        ValueError
            If a context has no control cells, or no training perturbation is of a single gene.

        Examples
        --------
        >>> additive = distpert.baselines.Additive(scale="logit").fit(histograms, embeddings)  # doctest: +SKIP
        >>> additive.predict(["NANOG", "SOX2"], context="5").summary(n_cells=300)  # doctest: +SKIP
        """
        embeddings = check_training(histograms, embeddings)
        singles = tuple(label for label in histograms.perturbations if len(genes_of(label)) == 1)
        if not singles:
            raise ValueError("no perturbation in training is of one gene, so there are no shifts to add")
        weight = PRIOR_CELLS[self.scale] if self.prior_cells is None else float(self.prior_cells)
        sums = _LogitSums if self.scale == "logit" else _ProbabilitySums
        fitted = sums(TrainingShares(histograms), singles, weight, self.shrink)
        return LabelPredictor(self.name, histograms, embeddings, fitted.of_label)


@dataclass(frozen=True, eq=False)
class _Sums(ABC):
    """The cells of single-gene perturbations, and the settings."""

    shares: TrainingShares
    singles: tuple[str, ...]
    prior_cells: float
    shrink: bool

    @abstractmethod
    def seen_shift(self, label: str) -> NDArray[np.float64]:
        """Shift (context, gene, bin) of a single-gene perturbation in training; zero where it has no cells."""

    @abstractmethod
    def of_label(self, label: str) -> NDArray[np.float64]:
        """Bin probabilities (context, gene, bin)."""

    @cached_property
    def mean_shift(self) -> NDArray[np.float64]:
        """Mean shift (context, gene, bin) over single-gene perturbations, each counted once."""
        total = np.zeros_like(self.shares.control)
        for label in self.singles:
            total += self.stood_in(label, self.seen_shift(label))
        return total / len(self.singles)

    def stood_in(self, label: str, shift: NDArray[np.float64]) -> NDArray[np.float64]:
        return stand_in(shift, self.shares.n_cells(label) > 0)

    def shift(self, label: str) -> NDArray[np.float64]:
        """Shift of any gene (context, gene, bin)."""
        return self.stood_in(label, self.seen_shift(label)) if label in self.singles else self.mean_shift


@dataclass(frozen=True, eq=False)
class _ProbabilitySums(_Sums):
    def seen_shift(self, label: str) -> NDArray[np.float64]:
        return self.shares.shift(label)

    def shift(self, label: str) -> NDArray[np.float64]:
        if label not in self.singles or not self.shrink:
            return super().shift(label)
        shift, control, n_cells = self.shares.shift(label), self.shares.control, self.shares.n_cells(label)
        return self.stood_in(label, signal_share(control + shift, control, n_cells, self.shares.n_control) * shift)

    def of_label(self, label: str) -> NDArray[np.float64]:
        genes = genes_of(label)
        moved = add_shift(self.shares.control, sum(map(self.shift, genes), np.zeros_like(self.shares.control)))
        fewest = np.minimum.reduce([self.cells_behind(gene) for gene in genes])[:, None, None]
        return (fewest * moved + self.prior_cells * self.shares.smoothed_pooled) / (fewest + self.prior_cells)

    @cached_property
    def _cells_of_singles(self) -> int:
        return int(sum(self.shares.n_cells(label).sum() for label in self.singles))

    def cells_behind(self, gene: str) -> NDArray[np.int64]:
        """Numbers of cells (context) behind a gene's shift; where it is a mean shift, the cells behind that mean."""
        if gene not in self.singles:
            return np.full(len(self.shares.control), self._cells_of_singles)
        n_cells = self.shares.n_cells(gene)
        return np.where(n_cells > 0, n_cells, n_cells.sum())


@dataclass(frozen=True, eq=False)
class _LogitSums(_Sums):
    def seen_shift(self, label: str) -> NDArray[np.float64]:
        n = self.shares.n_cells(label)[:, None, None]
        base = self.shares.smoothed_control
        smoothed = n * (self.shares.control + self.shares.shift(label)) + self.prior_cells * base
        return np.log(smoothed / (n + self.prior_cells) / base)

    def of_label(self, label: str) -> NDArray[np.float64]:
        logits = np.log(self.shares.smoothed_control)
        return softmax(logits + sum(map(self.shift, genes_of(label)), np.zeros_like(logits)))


def signal_share(
    shares: NDArray[np.float64], control: NDArray[np.float64], n_cells: NDArray[np.int64], n_control: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Part (context, gene, 1) of a shift that does not come from the sampling of cells: r in `Additive`.

    It is zero where either group has fewer than two cells, because the effect of sampling is then unknown.
    """
    cdf, control_cdf = shares.cumsum(axis=-1), control.cumsum(axis=-1)
    enough = (n_cells > 1) & (n_control > 1)
    n, n_c = (np.maximum(number - 1, 1)[:, None] for number in (n_cells, n_control))
    noise = (cdf * (1 - cdf)).sum(axis=-1) / n + (control_cdf * (1 - control_cdf)).sum(axis=-1) / n_c
    size = ((cdf - control_cdf) ** 2).sum(axis=-1)
    signal = np.divide(np.maximum(size - noise, 0), size, out=np.zeros_like(size), where=size > 0)
    return np.where(enough[:, None], signal, 0)[..., None]
