"""Predicted distributions of a fit, with their likelihood, synthetic cells and the layout of ArviZ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from distpert._shared.arguments import check_count, check_type
from distpert.predictions.posterior_draws import PosteriorDraws

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms
    from distpert.predictions.prior import PriorPrediction


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(PosteriorDraws):
    """Posterior of the distributions of all genes under some perturbations; made by `Fit.predict`.

    It stores draws of the latent responses. Methods draw histograms from them when they are called, on all cores. These
    are the same each time.

    Attributes
    ----------
    training : Histograms
        The counts that the model was fitted to.
    perturbations, contexts : tuple of str
        The predicted perturbations and contexts; every combination of the two.
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
    seed : int
        Seed of all random numbers.
    progress_bar : bool
        Whether to show progress when something takes longer than two seconds.

    See Also
    --------
    distpert.Fit.predict, distpert.score, distpert.calibration, distpert.plots.plot_histogram

    Examples
    --------
    >>> prediction = fit.predict(["SALL4", "NANOG+SOX2"])  # doctest: +SKIP
    >>> prediction.summary(ci_prob=0.9)["mean"]  # doctest: +SKIP
    """

    def __repr__(self) -> str:
        n_seen = len(set(self.posterior.perturbations).intersection(self.perturbations))
        return (
            f"Prediction: {len(self.perturbations)} perturbations ({n_seen} in training) × {len(self.genes)} genes, "
            f"{self.num_draws} draws{self.in_contexts()}; embeddings tell {np.median(self.told):.0%} of the variance "
            "of responses (median)"
        )

    @property
    def told(self) -> xr.DataArray:
        """Share of the variance of each response that embeddings tell, given the other perturbations.

        Near 0, the prediction of an unseen perturbation is that of any perturbation; near 1, its embedding determines
        its response. For a perturbation in training it is the share that the others tell, without its own cells. Genes
        that two labels share count as well.

        Returns
        -------
        DataArray
            (perturbation).

        See Also
        --------
        distpert.Prediction.told_by_source, distpert.Fit.left_out_r2

        Examples
        --------
        >>> prediction.told.to_series().sort_values()  # doctest: +SKIP
        """
        import xarray as xr

        return xr.DataArray(
            self.posterior.told(self.perturbations),
            coords={"perturbation": list(self.perturbations)},
            attrs={"long_name": "share of the variance of the response that embeddings tell", "units": "1"},
        )

    @property
    def told_by_source(self) -> xr.DataArray:
        """The parts of `told` that are due to each source of embeddings, and to the genes that labels share.

        Returns
        -------
        DataArray
            (perturbation, source). The sum over sources is `told`. A part can be slightly negative.

        See Also
        --------
        distpert.Fit.relevance

        Examples
        --------
        >>> prediction.told_by_source.to_pandas()  # doctest: +SKIP
        """
        import xarray as xr

        parts = self.posterior.told_by_source(self.perturbations)
        return xr.DataArray(
            np.stack(list(parts.values()), axis=-1),
            dims=("perturbation", "source"),
            coords={"perturbation": list(self.perturbations), "source": list(parts)},
            attrs={"long_name": "share of the variance of the response that a source tells", "units": "1"},
        )

    def explain(self, *, n_neighbors: int = 3) -> pd.DataFrame:
        """Return the training perturbations that each predicted response rests on.

        Parameters
        ----------
        n_neighbors : int
            Number of training perturbations for each label, those of greatest weight first.

        Returns
        -------
        DataFrame
            A row for each label and neighbor: ``perturbation``, ``neighbor``, its ``weight`` in the predicted response
            (averaged over factors; it can be negative), the ``kernel`` between the two, and the ``source`` with the
            largest part of it. A perturbation in training is explained as if it had been left out.

        Raises
        ------
        ValueError
            If ``n_neighbors`` is not a whole number above 0.

        Examples
        --------
        >>> prediction.explain()  # doctest: +SKIP
        """
        return self.posterior.explain(self.perturbations, n_neighbors=check_count("n_neighbors", n_neighbors))

    def effects(
        self, *, reference: Literal["control", "mean", "additive"] = "control", rope: float = 0.0, ci_prob: float = 0.9
    ) -> xr.Dataset:
        r"""Shift of each moment of each gene from a reference, with its uncertainty.

        Both sides of a shift come from the same posterior draw. The uncertainty of the controls is therefore included,
        and what both sides share cancels.

        Parameters
        ----------
        reference : {"control", "mean", "additive"}
            ``"control"``: the control cells of the same context. ``"mean"``: a perturbation with the mean response of
            the training perturbations. ``"additive"``, for labels ``A+B``: the sum of the shifts of A and B from
            control; what is beyond it is their interaction.
        rope : float
            Half the width of the region of practical equivalence, in units of the standard deviation of the gene's
            expression in control cells. A shift of the mean is in it if :math:`|\Delta| \le r \sigma`; of the
            variance, if :math:`|\Delta| \le r \sigma^2`; of skewness and kurtosis, if :math:`|\Delta| \le r`.
        ci_prob : float
            Probability of the interval.

        Returns
        -------
        Dataset
            Each (moment, perturbation, [context,] gene):

            - ``shift``, ``lower``, ``upper``: median and central interval.
            - ``prob_positive``: posterior probability that the shift is positive.
            - ``lfsr``: local false sign rate, the smaller of the probabilities that the shift is at least 0 and at most
              0 (Stephens 2017). With S draws, both probabilities are (count + ½) / (S + 1), so none is exactly 0.
            - ``s_value``: expected share of wrong signs among the genes of the same perturbation, context and moment
              whose lfsr is at most that of this gene: the mean of their lfsr.
            - ``prob_rope``: probability that the shift is in the region of practical equivalence.

            And (perturbation, [context,] gene): ``log2_fold_change``, ``log2_fold_change_lower`` and
            ``log2_fold_change_upper``, of the mean expression before the logarithm, :math:`\operatorname{E}[e^x - 1]`.

            A gene that is constant in the data never changes: its shift is 0, and its lfsr is 1.

        Raises
        ------
        ValueError
            If the reference is none of these, ``rope`` is negative, ``ci_prob`` is not between 0 and 1, or the
            reference is ``"additive"`` and a label has only one gene.
        KeyError
            If the reference is ``"additive"`` and a gene of a label has no embedding.

        See Also
        --------
        distpert.plots.plot_effects, distpert.Prediction.summary

        Notes
        -----
        Shifts are shrunk towards those of other perturbations and genes, by as much as the data say. A call at an lfsr
        of .05 is wrong in sign with a probability of .05 under the model, however many genes are looked at. For the
        expected share of wrong signs among all calls, use ``s_value``.

        References
        ----------
        Stephens (2017), False discovery rates: a new deal, Biostatistics 18, 275.

        Examples
        --------
        >>> effects = prediction.effects(rope=0.1)  # doctest: +SKIP
        >>> table = effects.to_dataframe().reset_index()  # doctest: +SKIP
        >>> table[table["s_value"] < 0.05].to_csv("effects.csv", index=False)  # doctest: +SKIP
        """
        from distpert.predictions.effects import find_effects

        return find_effects(self, reference, rope, ci_prob)

    def log_likelihood(self, counts: xr.DataArray) -> xr.DataArray:
        """Log-probability of observed cells under each posterior draw.

        Parameters
        ----------
        counts : DataArray
            (perturbation, [context,] gene, bin), for example from the group ``constant_data`` of `to_datatree`.

        Returns
        -------
        DataArray
            (draw, perturbation, [context,] gene) in nats, of all cells of a group. The variation of the histogram (the
            Dirichlet) is integrated out. The multinomial coefficient, which is the same for all draws, is not included.

        Raises
        ------
        TypeError
            If `counts` is not a DataArray.
        KeyError
            If counts of a predicted perturbation, context or gene are missing.
        ValueError
            If counts have other dimensions or bins, or are not numbers of cells.

        Examples
        --------
        >>> counts = prediction.to_datatree(held_out)["constant_data"]["counts"]  # doctest: +SKIP
        >>> prediction.log_likelihood(counts).sum("gene")  # doctest: +SKIP
        """
        import xarray as xr

        from distpert.predictions.likelihood import log_likelihood

        made_by = 'to_datatree(adata)["constant_data"]["counts"]'
        check_type("counts", counts, xr.DataArray, made_by=made_by)
        return log_likelihood(self, counts)

    def sample_cells(self, n_cells: int = 500, *, seed: int = 0) -> AnnData:
        """Draw synthetic cells.

        Each cell comes from a posterior draw of its own. Cells therefore differ both as real cells do and by the
        uncertainty of the posterior. Genes are independent within a cell, given the draw: the model describes the
        distribution of each gene, not how genes vary together.

        Parameters
        ----------
        n_cells : int
            Cells for each perturbation and context.
        seed : int
            Seed of the cells; the posterior draws depend on the seed of the prediction.

        Returns
        -------
        AnnData
            Cells × genes. ``X`` has the center of the drawn bin, in the units of the training data; ``obs`` has the
            perturbation and the context. Columns and layers have the names of the training data, so the cells can be
            read with the same keys.

        Raises
        ------
        ValueError
            If `n_cells` is not a whole number above 0.

        Examples
        --------
        >>> cells = prediction.sample_cells(500)  # doctest: +SKIP
        """
        from distpert.predictions.cells import draw_cells

        return draw_cells(self, n_cells, seed)

    def to_datatree(
        self, adata: AnnData | Histograms | None = None, *, prior: PriorPrediction | None = None
    ) -> xr.DataTree:
        """Return the posterior in the layout of ArviZ.

        Parameters
        ----------
        adata : AnnData or Histograms, optional
            Cells of the predicted perturbations, read with the keys of the training. They add the groups
            ``observed_data`` and ``log_likelihood``.
        prior : PriorPrediction, optional
            Prior of the same perturbations and contexts, from `Fit.prior_predictive`. It adds the groups ``prior`` and
            ``prior_predictive``, in the layout of ``posterior`` and ``posterior_predictive``.

        Returns
        -------
        DataTree
            - ``posterior``: ``response`` (chain, draw, perturbation, factor), ``on_target`` (chain, draw, perturbation,
              tilt), ``inactive`` (chain, draw, perturbation), 1 where the perturbation does nothing, and
              ``concentration`` (chain, draw, gene). Markov chains keep their chains; else there is one.
            - ``log_prior``: log density of these draws under their priors, for sensitivity to the prior.
            - ``posterior_predictive``: ``mean``, ``variance``, ``skewness`` and ``kurtosis`` (chain, draw,
              perturbation, [context,] gene) of replicates with as many cells as were observed, and
              ``distribution_mean``, ... of the distributions themselves. Without ``adata`` both are the same.
            - ``constant_data``: bin edges; ``in_training``, whether the fit has seen the perturbation; the point
              estimate ``explained_share`` (factor). With ``adata`` also ``n_cells`` and ``counts``.
            - ``observed_data``: moments of the observed cells.
            - ``log_likelihood``: ``counts`` (chain, draw, perturbation, [context,] gene), of all the cells of a group,
              in nats (`log_likelihood`).

            A group (a perturbation in a context) without cells is NaN in ``observed_data``, ``log_likelihood`` and the
            replicates.

        Raises
        ------
        ValueError
            If a predicted perturbation has no cells in any predicted context, or the prior is of other perturbations or
            contexts.

        See Also
        --------
        distpert.to_arviz

        Examples
        --------
        >>> tree = prediction.to_datatree(held_out)  # doctest: +SKIP
        >>> arviz.summary(distpert.to_arviz(tree), var_names=["response"], kind="stats")  # doctest: +SKIP
        """
        from distpert.predictions.datatree import build_datatree

        return build_datatree(self, adata, prior)
