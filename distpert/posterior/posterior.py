"""The posterior of a screen, as frozen data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import quantile_levels
from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.histograms.statistics import attributes
from distpert.model.design import on_target_tilts, target_indices
from distpert.model.gaussian_process import leave_one_out, predict_normal
from distpert.model.kernels import Kernel, kernel_between
from distpert.posterior.explained import draw_explained_share, left_out_r2
from distpert.posterior.inactive import Inactive, find_inactive
from distpert.posterior.program_noise import program_noise, widen
from distpert.posterior.responses import DrawnResponses, Responses
from distpert.posterior.samples import SampledResponses, flatten
from distpert.posterior.shared import SharedPosterior, typical_scale
from distpert.posterior.unseen import KernelEigen, Unseen, learn_unseen, null_response
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def interval(draws: NDArray[np.floating], ci_prob: float) -> tuple[float, float, float]:
    """Lower end, median and upper end of the central interval of draws."""
    median, lower, upper = np.quantile(draws, quantile_levels(ci_prob))
    return float(lower), float(median), float(upper)


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
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

    histograms: Histograms
    embeddings: Embeddings
    kernel: Kernel
    parameters: xr.Dataset
    samples: xr.Dataset | None = field(default=None, kw_only=True)

    @cached_property
    def groups(self) -> TrainingGroups:
        """The training counts as arrays."""
        return TrainingGroups(self.histograms)

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Perturbations in training."""
        return self.groups.perturbations

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts in training; ``("all",)`` if there is no context key."""
        return self.groups.contexts

    @property
    def genes(self) -> tuple[str, ...]:
        """Measured genes."""
        return self.histograms.genes

    @property
    def n_factors(self) -> int:
        """Number of factors of the latent response."""
        return int(self.parameters.sizes["factor"])

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
        known = self._doubles["response"], self._doubles["response_scale"], self.factor_weight, self.perturbations
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
        unseen = self.unseen
        responses = (self._doubles["response"] - unseen.origin) / (unseen.length[:, None] * unseen.size) - unseen.center
        weight = self.factor_weight * unseen.size**2
        return left_out_r2(responses, unseen.share, *self._eigen, weight, self.perturbations)

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
        zeros = np.zeros_like(self._doubles["response"])
        _, of_seen = leave_one_out(unseen.share, *self._eigen, zeros)
        new = [label for label in labels if label not in self.perturbations]
        cross = kernel_between(new, self.perturbations, self.embeddings, self.kernel)
        _, of_new = predict_normal(unseen.share, *self._eigen, cross, zeros, zeros)
        left = np.array(
            [
                of_new[new.index(label)] ** 2 if label in new else of_seen[self.perturbations.index(label)]
                for label in labels
            ]
        )
        return np.clip((1 - left) @ weight / weight.sum(), 0, 1)

    @property
    def strengths(self) -> NDArray[np.float64]:
        """Strength of the response of each training perturbation, given its prediction from the others (perturbation,).

        Strengths would all be about one if responses were normal. In fact, some perturbations do much and many do
        little. Responses of unseen perturbations are drawn accordingly.
        """
        return self.unseen.strength

    @property
    def factor_weight(self) -> NDArray[np.float64]:
        """Share of each factor in the size of all shifts (factor,): squared loadings, weighted by bin probabilities."""
        loading = self.parameters["loading"].to_numpy().astype(np.float64)
        weight = (loading**2 * np.exp(self.log_control).mean(axis=0)).sum(axis=(1, 2))
        return weight / weight.sum()

    @cached_property
    def concentration(self) -> NDArray[np.float32]:
        """Concentration κ of each gene (gene,)."""
        return np.exp(self.parameters["log_concentration"].to_numpy())

    @cached_property
    def log_control(self) -> NDArray[np.float32]:
        """Log of the control histograms at the posterior mean of their logits (context, gene, bin)."""
        from scipy.special import log_softmax

        normalized: NDArray[np.float32] = log_softmax(self.parameters["control"].to_numpy(), axis=-1)
        return normalized

    @property
    def control(self) -> NDArray[np.float64]:
        """Histograms of the control cells (context, gene, bin), without smoothing."""
        return self.groups.control

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

    @cached_property
    def tilts(self) -> NDArray[np.float32]:
        """Directions of the on-target shift (context, gene, tilt, bin)."""
        return on_target_tilts(self.groups.smoothed_control).astype(np.float32)

    @cached_property
    def centers(self) -> NDArray[np.float32]:
        """Bin centers (gene, bin)."""
        return self.histograms.centers.to_numpy().astype(np.float32)

    def targets(self, label: str) -> list[int]:
        """Return the positions, among the measured genes, of the genes that a label perturbs.

        Parameters
        ----------
        label : str
            Label of a perturbation.

        Returns
        -------
        list of int
            Empty if none of the genes is measured.

        Examples
        --------
        >>> [fit.genes[position] for position in fit.targets("NANOG+SOX2")]  # doctest: +SKIP
        ['NANOG', 'SOX2']
        """
        (row,) = target_indices([label], self.genes)
        return [int(gene) for gene in row if gene < len(self.genes)]

    def draw_responses(self, labels: Sequence[str], num_draws: int, seed: int) -> DrawnResponses:
        """Draw latent responses and on-target tilts.

        Parameters
        ----------
        labels : sequence of str
            Perturbations, in training or unseen, with the genes of each label in sorted order.
        num_draws : int
            Number of draws.
        seed : int
            Seed of the draws. The draws of a label do not depend on the other labels.

        Returns
        -------
        DrawnResponses
            ``response`` (draw, label, factor), ``on_target`` (draw, label, tilt) and ``inactive`` (draw, label).

        Examples
        --------
        >>> drawn = fit.draw_responses(["SALL4"], num_draws=200, seed=0)  # doctest: +SKIP
        >>> drawn.response.mean(axis=0)  # doctest: +SKIP
        """
        return self._responses.draw(labels, num_draws, seed)

    @cached_property
    def shared(self) -> SharedPosterior:
        """Posterior of what all perturbations share."""
        return SharedPosterior(self.parameters, self.samples)

    @property
    def n_chains(self) -> int:
        """Number of Markov chains; 1 if draws come from a fitted normal."""
        return 1 if self.samples is None else int(self.samples.sizes["chain"])

    def mean_response(self, num_draws: int) -> NDArray[np.float32]:
        """Return the mean response of the training perturbations (draw, factor).

        Parameters
        ----------
        num_draws : int
            Number of draws; of a normal posterior, all are the same.

        Returns
        -------
        ndarray, shape (draw, factor)

        Examples
        --------
        >>> fit.mean_response(200).shape  # doctest: +SKIP
        """
        if self.samples is not None:
            return flatten(self.samples[["response"]], num_draws)["response"].mean("perturbation").to_numpy()
        mean = self.parameters["response"].mean("perturbation").to_numpy()
        return np.broadcast_to(mean, (num_draws, len(mean))).copy()

    @cached_property
    def _doubles(self) -> dict[str, NDArray[np.float64]]:
        """Parameters without a gene dimension, in double precision."""
        small = {str(name): array for name, array in self.parameters.items() if "gene" not in array.dims}
        return {name: array.to_numpy().astype(np.float64) for name, array in small.items()}

    @cached_property
    def _responses(self) -> Responses | SampledResponses:
        if self.samples is not None:
            return SampledResponses(self.perturbations, self.samples, self.embeddings, self.kernel, self._eigen)
        known = self.perturbations, self._doubles, self.embeddings, self.kernel
        return Responses(*known, self._eigen, self.unseen, self._seen, self._inactive.probability)

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

        probability = self._inactive.probability if self.samples is None else np.zeros(len(self.perturbations))
        return pd.Series(probability, index=pd.Index(self.perturbations, name="perturbation"), name="prob_inactive")

    @cached_property
    def _seen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Posterior means and standard deviations of responses, whose noise includes programs of genes."""
        values, groups = self._doubles, self.groups
        known = values["response"], np.maximum(values["response_scale"], 1e-6)
        if groups.part_counts is None:
            return known
        noise = program_noise(
            groups.part_counts,
            groups.part_n_cells,
            groups.part_context,
            self.parameters["loading"].to_numpy().astype(np.float64),
            np.exp(self.log_control),
            np.bincount(groups.perturbation, groups.n_cells[groups.perturbed]),
        )
        predicted, variance = leave_one_out(values["explained_share"], *self._eigen, values["response"])
        return widen(*known, predicted, variance, self.unseen.strength, noise)

    @cached_property
    def _inactive(self) -> Inactive:
        values = self._doubles
        predicted, variance = leave_one_out(values["explained_share"], *self._eigen, values["response"])
        measured = np.array([bool(self.targets(label)) for label in self.perturbations])
        return find_inactive(
            *self._seen,
            predicted,
            variance,
            self.unseen.origin,
            values["on_target"],
            np.maximum(values["on_target_scale"], 1e-6),
            (values["tilt_mean"], values["tilt_scale"]),
            measured,
        )

    @property
    def _eigen(self) -> KernelEigen:
        return KernelEigen(self._doubles["eigenvalues"], self._doubles["eigenvectors"])

    @cached_property
    def unseen(self) -> Unseen:
        """What training perturbations that are left out tell of the responses of unseen ones."""
        parameters = self._doubles
        origin = null_response(
            self.parameters["common"].to_numpy(),
            self.parameters["loading"].to_numpy(),
            np.exp(self.log_control),
            int(self.groups.n_control.sum()),
        )
        known = parameters["response"], parameters["response_scale"]
        n_genes = np.array([len(genes_of(label)) for label in self.perturbations])
        return learn_unseen(*known, self._eigen, self.factor_weight, origin, n_genes)
