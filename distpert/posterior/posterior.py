"""What a posterior tells of a whole screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import quantile_levels
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.histograms.statistics import attributes
from distpert.model.gaussian_process import leave_one_out, predict_normal
from distpert.model.kernels import kernel_between
from distpert.posterior.base import BasePosterior
from distpert.posterior.explained import draw_explained_share, left_out_r2
from distpert.posterior.relevance import LatentResponses, explain, relevance, told_by_source
from distpert.posterior.shared import typical_scale

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def interval(draws: NDArray[np.floating], ci_prob: float) -> tuple[float, float, float]:
    """Lower end, median and upper end of the central interval of draws."""
    median, lower, upper = np.quantile(draws, quantile_levels(ci_prob))
    return float(lower), float(median), float(upper)


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(BasePosterior):
    """The posterior of a screen; `distpert.Fit` adds how it was fitted, and makes predictions.

    Attributes
    ----------
    histograms : Histograms
        The training counts.
    embeddings : Embeddings
        Embeddings of all genes that can be predicted.
    kernel : Kernel
        Kernel between perturbations.
    parameters : Dataset
        Posterior means in logits: ``control``, ``common`` (context, gene, bin) and ``loading`` (factor, gene, bin).
        Their standard deviations along the coordinates of ``basis`` (gene, bin, direction): ``level_scale`` and
        ``common_scale`` (context, gene, direction), ``loading_scale`` (factor, gene, direction). Means and standard
        deviations of ``response`` and ``response_scale`` (perturbation, factor), ``on_target`` and ``on_target_scale``
        (perturbation, tilt), ``log_concentration`` and ``log_concentration_scale`` (gene). Point estimates
        ``common_size``, ``factor_size`` (factor), ``direction_size`` (direction), ``explained_share`` (factor),
        ``tilt_mean`` and ``tilt_scale`` (tilt), ``typical_log_concentration``, ``log_concentration_spread``.
        ``perturbed_share`` (context); ``eigenvalues`` and ``eigenvectors`` of the kernel between training
        perturbations. Of chains it is one draw, and all standard deviations are 0; whatever is not a prediction, such
        as `told`, `left_out_r2` and `factor_weight`, is then of this draw.
    samples : Dataset or None
        Draws of Markov chains (chain, draw, ...), if there are any. Predictions then come from them.

    See Also
    --------
    distpert.Fit

    Examples
    --------
    >>> fit.parameters["loading"]  # doctest: +SKIP
    >>> fit.left_out_r2()  # doctest: +SKIP
    """

    @property
    def explained_share(self) -> float:
        """Share of the variance of latent responses that follows the kernel, ρ in the model.

        It is the median of its posterior, see `explained_share_interval`. With a short length scale, nearly all of the
        variance may follow the kernel, and yet little can be predicted of a gene that is far from all others: see
        `left_out_r2`.
        """
        return self.explained_share_interval()[1]

    def explained_share_interval(self, ci_prob: float = 0.9) -> tuple[float, float, float]:
        """Lower end, median and upper end of the share of the variance of latent responses that follows the kernel.

        Factors are weighted by the size of their shifts (`factor_weight`; of chains, by their squared loadings). The
        kernel counts as unknown: all length scales and powers of its grid, and two longer length scales, enter by
        their marginal likelihood. The prior of shares is uniform. Of chains, kernel and prior are those of the model.

        Parameters
        ----------
        ci_prob : float
            Probability of the interval.

        Returns
        -------
        tuple of float

        Examples
        --------
        >>> fit.explained_share_interval()  # doctest: +SKIP
        """
        return interval(self._shares, ci_prob)

    def concentration_interval(self, ci_prob: float = 0.9) -> tuple[float, float, float]:
        """Lower end, median and upper end of the concentration κ of a typical gene.

        Parameters
        ----------
        ci_prob : float
            Probability of the interval.

        Returns
        -------
        tuple of float

        Examples
        --------
        >>> fit.concentration_interval()  # doctest: +SKIP
        """
        from scipy.stats import norm

        if self.samples is not None:
            return interval(np.exp(self.samples["typical_log_concentration"].to_numpy().ravel()), ci_prob)
        (level,) = quantile_levels(ci_prob)[2:]
        scale = self.parameters["log_concentration_scale"].to_numpy()
        off = norm.ppf(level) * typical_scale(scale, float(self.parameters["log_concentration_spread"]))
        typical = float(self.parameters["typical_log_concentration"])
        return float(np.exp(typical - off)), float(np.exp(typical)), float(np.exp(typical + off))

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """Draws of the explained share."""
        if self.samples is not None:
            chosen = self.samples[["loading", "explained_share"]]
            sizes = (chosen["loading"] ** 2).sum(["gene", "bin"])
            shares: NDArray[np.float64] = (
                (sizes * chosen["explained_share"]).sum("factor") / sizes.sum("factor")
            ).to_numpy()
            return shares.ravel()
        known = (
            self.small_parameters["response"],
            self.small_parameters["response_scale"],
            self.factor_weight,
            self.perturbations,
        )
        return draw_explained_share(*known, self.embeddings, self.kernel, (1.0, 1.0))

    def left_out_r2(self) -> dict[str, float]:
        """R² of latent responses that are predicted without the perturbation, for single genes and for pairs.

        For a single gene, all labels with this gene are left out, as for a gene that was never perturbed. For a pair
        only the pair is left out. The responses were estimated with the kernel, and loadings with all perturbations;
        `distpert.cross_validate` leaves out the cells as well.

        Returns
        -------
        dict
            R² by ``"single genes"`` and ``"pairs"``, as far as there are such labels. Below 0, the mean response is a
            better prediction.

        Examples
        --------
        >>> fit.left_out_r2()  # doctest: +SKIP
        """
        latent = self.latent
        return left_out_r2(latent.response, latent.share, *self.eigen, latent.weight, self.perturbations)

    def told(self, labels: Sequence[str]) -> NDArray[np.float64]:
        r"""Return the share of the variance of each label's response that embeddings tell (label,).

        .. math:: \frac{\sum_k w_k d_k^2 (1 - \sigma_{pk}^2)}{\sum_k w_k d_k^2}

        with :math:`\sigma_{pk}^2` the variance of the response given the other training perturbations, where 1 is that
        without them. Shared genes count as well.

        Parameters
        ----------
        labels : sequence of str
            Perturbations, in training or unseen, with the genes of each label in sorted order.

        Returns
        -------
        ndarray, shape (label,)

        Examples
        --------
        >>> fit.told(["NANOG"])  # doctest: +SKIP
        """
        unseen, weight = self.unseen, self.factor_weight * self.unseen.size**2
        zeros = np.zeros_like(self.small_parameters["response"])
        _, of_seen = leave_one_out(unseen.share, *self.eigen, zeros)
        seen = set(self.perturbations)
        new = [label for label in labels if label not in seen]
        cross = kernel_between(new, self.perturbations, self.embeddings, self.kernel)
        _, of_new = predict_normal(unseen.share, *self.eigen, cross, zeros, zeros)
        variance = dict(zip(self.perturbations, of_seen, strict=True)) | dict(zip(new, of_new**2, strict=True))
        left = np.array([variance[label] for label in labels])
        return np.clip((1 - left) @ weight / weight.sum(), 0, 1)

    @property
    def strengths(self) -> NDArray[np.float64]:
        """Strength of the response of each training perturbation, given its prediction from the others (perturbation,).

        Strengths would all be about one if responses were normal. In fact, some perturbations do much and many do
        little. Responses of unseen perturbations are drawn accordingly.
        """
        return self.unseen.strength

    def control_moments(self) -> xr.Dataset:
        """Moments of the control cells.

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each ([context,] gene).

        Examples
        --------
        >>> fit.control_moments()["mean"].sel(gene="SOX2")  # doctest: +SKIP
        """
        import xarray as xr

        values = histogram_moments(self.control, self.centers.astype(np.float64))
        moments = xr.Dataset(
            {name: (("context", "gene"), value, attributes(name)) for name, value in zip(MOMENTS, values, strict=True)},
            coords={"context": list(self.contexts), "gene": list(self.genes)},
        )
        return moments if self.histograms.context_key else moments.isel(context=0, drop=True)

    @property
    def prob_inactive(self) -> pd.Series:
        """Posterior probability of each training perturbation to do nothing, by label.

        A perturbation that does nothing leaves cells as the controls are. Draws of its prediction are mixed
        accordingly. For chains it is 0, because the model itself has no such perturbations.

        Examples
        --------
        >>> fit.prob_inactive.sort_values()  # doctest: +SKIP
        """
        import pandas as pd

        probability = self.inactive.probability if self.samples is None else np.zeros(len(self.perturbations))
        return pd.Series(probability, index=pd.Index(self.perturbations, name="perturbation"), name="prob_inactive")

    @cached_property
    def latent(self) -> LatentResponses:
        """Responses of the training perturbations, as the Gaussian process of unseen ones sees them."""
        unseen = self.unseen
        divisor = unseen.length[:, None] * unseen.size
        response = (self.small_parameters["response"] - unseen.origin) / divisor - unseen.center
        weight = self.factor_weight * unseen.size**2
        return LatentResponses(self.perturbations, response, weight / weight.sum(), unseen.share)

    @cached_property
    def relevance(self) -> pd.DataFrame:
        """What each source of embeddings predicts, alone and together.

        A row for each source, one for the genes that labels share, where there are such, and one for all sources.

        ``weight`` in the kernel, the joint part included, and ``length_scale`` of the source's own part;
        ``n_perturbations`` in training and ``n_genes`` that it covers; ``r2`` of latent responses that are left out one
        at a time, predicted from this source alone with a kernel of its own, with ``r2_lower`` and ``r2_upper``, a 90 %
        interval by resampling perturbations. Below 0, the mean response is a better prediction.

        Examples
        --------
        >>> fit.relevance[["weight", "r2"]]  # doctest: +SKIP
        """
        return relevance(self.latent, self.embeddings, self.kernel, 0.9)

    def explain(self, labels: Sequence[str], *, n_neighbors: int = 3) -> pd.DataFrame:
        """Return the training perturbations that the predicted responses of some labels rest on.

        Parameters
        ----------
        labels : sequence of str
            Perturbations, in training or unseen, with the genes of each label in sorted order. One in training is
            explained as if it had been left out.
        n_neighbors : int
            Number of training perturbations for each label, those of greatest weight first.

        Returns
        -------
        DataFrame
            A row for each label and neighbor: ``perturbation``, ``neighbor``, its ``weight`` in the predicted response
            (averaged over factors; it can be negative), the ``kernel`` between the two, and the ``source`` with the
            largest part of it.

        Examples
        --------
        >>> fit.explain(["SALL4"])  # doctest: +SKIP
        """
        return explain(labels, self.latent, self.embeddings, self.kernel, n_neighbors)

    def told_by_source(self, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return the part of `told` that is due to each source (label,), by its name.

        Parameters
        ----------
        labels : sequence of str
            As in `told`.

        Returns
        -------
        dict of str to ndarray
            They add up to `told`. The joint part of all sources is ``"all at once"``, and that of the genes that labels
            share ``"shared genes"``.

        Examples
        --------
        >>> fit.told_by_source(["NANOG"])  # doctest: +SKIP
        """
        return told_by_source(labels, self.latent, self.embeddings, self.kernel)
