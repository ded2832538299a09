"""Predicted distributions, their moments, and what cells drawn from them would show."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from distpert.arguments import check_type
from distpert.draws import (
    HISTOGRAM,
    REPLICATE,
    Block,
    expected_histograms,
    sample_histograms,
    sample_replicates,
    softmax,
)
from distpert.moments import MOMENTS, histogram_moments
from distpert.predicted import Drawn, check_loss

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.fitted import Fit
    from distpert.histograms import Histograms
    from distpert.predicted import CellNumbers
    from distpert.prior_prediction import PriorPrediction


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Drawn):
    """Posterior of the distributions of all genes under some perturbations; made by `Fit.predict`.

    Only draws of the latent responses are held. Histograms are made from them block by block when something is asked
    for, on all cores, and the same each time.

    Attributes
    ----------
    fit : Fit
        The fitted model.
    perturbations, contexts : tuple of str
        What is predicted; every combination of the two.
    response : ndarray, shape (draw, perturbation, factor), float32
        Draws of the latent responses.
    on_target : ndarray, shape (draw, perturbation, tilt), float32
        Draws of the tilts of each perturbed gene's own histogram.
    seed : int
        All randomness follows from it.
    progress_bar : bool
        Whether to show one when something takes longer than two seconds.
    """

    fit: Fit
    perturbations: tuple[str, ...]
    contexts: tuple[str, ...]
    response: NDArray[np.float32]
    on_target: NDArray[np.float32]
    seed: int
    progress_bar: bool = field(default=True)

    def __repr__(self) -> str:
        seen = set(self.fit.perturbations).intersection(self.perturbations)
        contexts = f" in contexts {', '.join(self.contexts)}" if self._has_contexts else ""
        return (
            f"Prediction: {len(self.perturbations)} perturbations ({len(seen)} of them in training) × "
            f"{len(self.genes)} genes, {self.num_draws} draws{contexts}"
        )

    @property
    def training(self) -> Histograms:
        """The counts that the model was fitted to."""
        return self.fit.histograms

    @property
    def num_draws(self) -> int:
        """Number of posterior draws."""
        return len(self.response)

    def histogram(self, loss: Literal["log", "wasserstein"] = "log") -> xr.DataArray:
        """Give the one histogram that is best for a loss.

        Parameters
        ----------
        loss
            ``"log"`` gives the posterior mean of the bin probabilities, best for the log score and for the CRPS and
            Cramér distance; ``"wasserstein"`` the pointwise posterior median of the CDF, best for Wasserstein-1.

        Returns
        -------
        DataArray
            (perturbation, [context,] gene, bin) probabilities that sum to one; coordinates ``bin_left`` and
            ``bin_right`` (gene, bin).

        Raises
        ------
        ValueError
            If the loss is another.
        """
        check_loss(loss)

        def posterior_mean(block: Block) -> NDArray:
            return expected_histograms(*self._dirichlet(block)).mean(axis=0)

        def median_cdf(block: Block) -> NDArray:
            cdf = np.median(self._draw(block).cumsum(axis=-1), axis=0)
            return np.diff(cdf / cdf[..., -1:], axis=-1, prepend=0)

        function = posterior_mean if loss == "log" else median_cdf
        values = self._collect(function, (self.training.n_bins,))
        return self._with_bins(self._labelled(values, ("bin",)))

    def moments(self, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Posterior draws of the moments of each distribution.

        Parameters
        ----------
        n_cells
            If given, the moments that this many cells drawn from each distribution would show: the predictive
            distribution for an experiment of that size. A number, one for each perturbation (a mapping or a Series), a
            DataArray or DataFrame (perturbation, [context]), all of which go by their labels, or an array in order.

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each (draw, perturbation, [context,] gene),
            float32.
        """
        cells = self._cells(n_cells)
        return self._draw_moments(lambda block: self._moments(block, cells), MOMENTS)

    def summary(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Posterior median and central credible interval of each moment.

        Parameters
        ----------
        ci_prob
            Probability that the interval holds.
        n_cells
            As in `moments`: with it, the interval is that in which the moments of so many cells should lie.

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each (statistic, perturbation, [context,]
            gene), with ``statistic`` one of ``median``, ``lower``, ``upper``. Draws are made and forgotten block by
            block. Draws of a single bin, which have no skewness and no kurtosis, are left out of the quantiles of
            these two.

        Raises
        ------
        ValueError
            If ``ci_prob`` is not between 0 and 1.
        """
        cells = self._cells(n_cells)
        return self._summarise_moments(lambda block: self._moments(block, cells), MOMENTS, ci_prob)

    def log_likelihood(self, counts: xr.DataArray) -> xr.DataArray:
        """Log-probability of observed cells under each posterior draw.

        Parameters
        ----------
        counts
            (perturbation, [context,] gene, bin), as `to_datatree` has them in ``constant_data``.

        Returns
        -------
        DataArray
            (draw, perturbation, [context,] gene) in nats, of all cells of a group, with the histogram's own variation
            (the Dirichlet) integrated out. Without the multinomial coefficient, which is the same for all draws.

        Raises
        ------
        TypeError
            If `counts` is no DataArray.
        KeyError
            If counts of something predicted are missing.
        ValueError
            If counts have other dimensions or bins, or are no numbers of cells.
        """
        import xarray as xr

        from distpert.datatree import log_likelihood

        made_by = 'to_datatree(adata)["constant_data"]["counts"]'
        check_type("counts", counts, xr.DataArray, made_by=made_by)

        return log_likelihood(self, counts)

    def sample_cells(self, n_cells: int = 500, *, seed: int = 0) -> AnnData:
        """Draw synthetic cells.

        Each cell is drawn from a posterior draw of its own, so that cells differ both as cells do and as the posterior
        is unsure. The model has the distribution of each gene, not how genes vary together from cell to cell: within
        a cell, genes are independent given the draw.

        Parameters
        ----------
        n_cells
            Cells for each perturbation and context.
        seed
            Of the cells; the draws themselves follow from the seed of the prediction.

        Returns
        -------
        AnnData
            Cells × genes, ``X`` the centre of the drawn bin in the units of the training data; ``obs`` has
            the perturbation and, where there is one, the context, each under the key that the fit was given. Where it
            was given a layer or a column of gene symbols, these are there too: cells are read back with the same keys.
        """
        from distpert.cells import draw_cells

        return draw_cells(self, n_cells, seed)

    def to_datatree(self, adata: AnnData | None = None, *, prior: PriorPrediction | None = None) -> xr.DataTree:
        """Lay out the posterior as ArviZ does.

        Parameters
        ----------
        adata
            Cells of the predicted perturbations, read with the keys that the fit was given. With it come the groups
            ``observed_data`` and ``log_likelihood``.
        prior
            Of the same perturbations and contexts (`Fit.prior_predictive`). With it come the groups ``prior`` and
            ``prior_predictive``, laid out as ``posterior`` and ``posterior_predictive`` are.

        Returns
        -------
        DataTree
            ``posterior``: ``response`` (chain, draw, perturbation, factor), ``on_target``, ``explained_share``,
            ``concentration``; ``posterior_predictive``: ``mean``, ``variance``, ``skewness`` and ``kurtosis`` (chain,
            draw, perturbation, [context,] gene) of as many cells as were observed, the replicates of those in
            ``observed_data``, and ``distribution_mean``, ... of the distributions themselves, which without ``adata``
            the former are too; ``constant_data``: bin edges, and ``in_training``, whether the fit has seen the
            perturbation. And with ``adata`` also ``observed_data``: the moments of the cells; in ``constant_data``
            their number ``n_cells`` and ``counts`` in bins; ``log_likelihood``: ``counts`` (chain, draw, perturbation,
            [context,] gene), that of all the cells of a perturbation, in nats (`log_likelihood`).

        Raises
        ------
        ValueError
            If ``adata`` has no cells of a predicted perturbation, or the prior is of other perturbations or contexts.
        """
        from distpert.datatree import build_datatree

        return build_datatree(self, adata, prior)

    def _one_group(self, perturbation: int, context: int) -> Prediction:
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            response=self.response[:, [perturbation]],
            on_target=self.on_target[:, [perturbation]],
        )

    # ------------------------------------------------------------------ from draws of responses to draws of histograms

    def _probs(self, block: Block) -> NDArray[np.float32]:
        """Probabilities π (draw, gene, bin): the model's story with the drawn responses."""
        fit, label = self.fit, self.perturbations[block.perturbation]
        p, genes = block.perturbation, block.genes
        context = fit.contexts.index(self.contexts[block.context])
        loading = fit.parameters["loading"].to_numpy()[:, genes]
        base = fit.log_control[context, genes] + fit.parameters["common"].to_numpy()[context, genes]
        logits = np.tensordot(self.response[:, p], loading, axes=1) + base
        for gene in fit.targets(label):
            if genes.start <= gene < genes.stop:
                logits[:, gene - genes.start] += self.on_target[:, p] @ fit.tilts[context, gene]
        return softmax(logits)

    def _dirichlet(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray | None]:
        """Give what histograms are drawn from: π, κ, and the group's own cells if it was in training."""
        label, context = self.perturbations[block.perturbation], self.contexts[block.context]
        concentration = np.exp(self.fit.parameters["log_concentration"].to_numpy()[block.genes])
        counts = self.fit.training_counts(label, context)
        return self._probs(block), concentration, None if counts is None else counts[block.genes]

    def _draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Draw histograms h (draw, gene, bin), or those of so many cells."""
        histograms = sample_histograms(self._generator(block, HISTOGRAM), *self._dirichlet(block))
        if n_cells is None:
            return histograms
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self._generator(block, REPLICATE), histograms, cells)

    def _moments(self, block: Block, n_cells: NDArray[np.int64] | None) -> tuple[NDArray, ...]:
        """Moments (draw, gene), of the distributions or of replicates of so many cells."""
        return histogram_moments(self._draw(block, n_cells), self.fit.centers[block.genes])
