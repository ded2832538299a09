"""Draws of histograms from a posterior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.posterior.posterior import Posterior
from distpert.posterior.shared import SharedDraws
from distpert.predictions.blocks import Block
from distpert.predictions.draws import (
    HISTOGRAM,
    REPLICATE,
    expected_histograms,
    sample_histograms,
    sample_replicates,
    softmax,
)
from distpert.predictions.histogram_prediction import HistogramPrediction


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorDraws(HistogramPrediction):
    """Posterior draws of latent responses, and the histograms that follow from them.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    posterior : Posterior
        The fit.
    response : ndarray, shape (draw, perturbation, factor), float32
        Draws of the latent responses.
    on_target : ndarray, shape (draw, perturbation, tilt), float32
        Draws of the tilts of each perturbed gene's own histogram.
    inactive : ndarray, shape (draw, perturbation), bool
        Draws in which a perturbation does nothing: its expected histograms are those of the controls.
    shared_at_mean : bool
        Whether what all perturbations share (controls, loadings, concentrations) has its posterior mean in every draw.
    """

    posterior: Posterior = field(kw_only=True)
    response: NDArray[np.float32] = field(kw_only=True)
    on_target: NDArray[np.float32] = field(kw_only=True)
    inactive: NDArray[np.bool_] = field(kw_only=True)
    shared_at_mean: bool = field(default=False, kw_only=True)

    kind: ClassVar[str] = "posterior"

    @property
    def num_draws(self) -> int:
        """Number of posterior draws."""
        return len(self.response)

    @property
    def embeddings(self) -> Embeddings:
        """Gene embeddings of the fit."""
        return self.posterior.embeddings

    def select_position(self, perturbation: int, context: int) -> Self:
        """Take out one group; see `BasePrediction.select_position`."""
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            response=self.response[:, [perturbation]],
            on_target=self.on_target[:, [perturbation]],
            inactive=self.inactive[:, [perturbation]],
        )

    def probs(self, block: Block) -> NDArray[np.float32]:
        """Return drawn expected histograms π (draw, gene, bin); those of the controls in inactive draws."""
        label, p, genes = self.perturbations[block.perturbation], block.perturbation, block.genes
        shared = self.shared(block)
        loading = shared.loading.reshape(*shared.loading.shape[:2], -1)
        logits = (self.response[:, p, None] @ loading).reshape(shared.base.shape) + shared.base
        context = self._context(block)
        for gene in self.posterior.targets(label):
            if genes.start <= gene < genes.stop:
                logits[:, gene - genes.start] += self.on_target[:, p] @ self.posterior.tilts[context, gene]
        inactive = self.inactive[:, p]
        logits[inactive] = shared.control[inactive]
        return softmax(logits)

    def shared(self, block: Block) -> SharedDraws:
        """Return the draws, for a block, of what all perturbations share."""
        drawn = self.posterior.shared.draw(self._context(block), block.genes, self.num_draws, self.seed)
        if not self.shared_at_mean:
            return drawn
        means = (np.broadcast_to(values.mean(axis=0), values.shape) for values in drawn)
        return SharedDraws(*map(np.ascontiguousarray, means))

    def _context(self, block: Block) -> int:
        """Position of a block's context among those of the training."""
        return self.posterior.contexts.index(self.contexts[block.context])

    def draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Draw histograms h, or histograms of ``n_cells`` cells; see `HistogramPrediction.draw`."""
        histograms = sample_histograms(self.generator(block, HISTOGRAM), *self._dirichlet(block))
        if n_cells is None:
            return histograms
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self.generator(block, REPLICATE), histograms, cells)

    def histogram_of_block(self, block: Block, loss: Literal["log", "wasserstein"]) -> NDArray[np.floating]:
        """Return the best histogram for a loss; the mean of the Dirichlet is known and needs no draws."""
        if loss == "log":
            return expected_histograms(*self._dirichlet(block)).mean(axis=0)
        return super().histogram_of_block(block, loss)

    def _dirichlet(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray | None]:
        """Return parameters of the Dirichlet: π, κ, and the counts of the group if it was in training."""
        label, context = self.perturbations[block.perturbation], self.contexts[block.context]
        counts = self.posterior.groups.counts_of(label, context)
        return self.probs(block), self.shared(block).concentration, None if counts is None else counts[block.genes]
