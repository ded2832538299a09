"""Draws of histograms from a posterior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.posterior.posterior import Posterior
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
    """

    posterior: Posterior = field(kw_only=True)
    response: NDArray[np.float32] = field(kw_only=True)
    on_target: NDArray[np.float32] = field(kw_only=True)

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
        )

    def probs(self, block: Block) -> NDArray[np.float32]:
        """Return expected histograms π (draw, gene, bin), given the drawn responses and tilts."""
        posterior, label = self.posterior, self.perturbations[block.perturbation]
        p, genes = block.perturbation, block.genes
        context = posterior.contexts.index(self.contexts[block.context])
        loading = posterior.parameters["loading"].to_numpy()[:, genes]
        base = posterior.log_control[context, genes] + posterior.parameters["common"].to_numpy()[context, genes]
        logits = np.tensordot(self.response[:, p], loading, axes=1) + base
        for gene in posterior.targets(label):
            if genes.start <= gene < genes.stop:
                logits[:, gene - genes.start] += self.on_target[:, p] @ posterior.tilts[context, gene]
        return softmax(logits)

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
        concentration = self.posterior.concentration[block.genes]
        return self.probs(block), concentration, None if counts is None else counts[block.genes]
