"""The posterior of a screen, as frozen data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.histograms.statistics import attributes
from distpert.model.design import on_target_tilts, target_indices
from distpert.model.gaussian_process import leave_one_out
from distpert.model.kernels import Kernel
from distpert.posterior.responses import Responses
from distpert.posterior.unseen import KernelEigen, learn_unseen, null_response
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr


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
        Point estimates ``common`` (context, gene, bin), ``loading`` (factor, gene, bin), ``explained_share`` (factor),
        ``tilt_mean`` and ``tilt_scale`` (tilt), ``log_concentration`` (gene); posterior means and standard deviations
        ``response`` and ``response_scale`` (perturbation, factor), ``on_target`` and ``on_target_scale``
        (perturbation, tilt); ``eigenvalues`` and ``eigenvectors`` of the kernel between training perturbations.

    See Also
    --------
    distpert.Fit

    Examples
    --------
    >>> fit.parameters["loading"]  # doctest: +SKIP
    >>> fit.predictable_share  # doctest: +SKIP
    """

    histograms: Histograms
    embeddings: Embeddings
    kernel: Kernel
    parameters: xr.Dataset

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

        Factors are weighted by the size of their shifts (`factor_weight`). With a short length scale, nearly all of the
        variance may follow the kernel, and yet little can be predicted of a gene that is far from all others: see
        `predictable_share`.
        """
        return float(self.factor_weight @ self.parameters["explained_share"].to_numpy())

    @property
    def predictable_share(self) -> float:
        """Leave-one-out R² of latent responses that the model expects, if each is predicted from all others.

        One minus the variance of a response given all others, 1 / (C⁻¹)_pp with C = ρ K + (1 − ρ) I (Rasmussen &
        Williams 2006, eq. 5.12), averaged over training perturbations; factors weighted as in `explained_share`.
        """
        names = ("explained_share", "eigenvalues", "eigenvectors", "response")
        _, variance = leave_one_out(*(self._doubles[name] for name in names))
        return float(self.factor_weight @ (1 - variance.mean(axis=0)))

    @property
    def strengths(self) -> NDArray[np.float64]:
        """Strength of the response of each training perturbation, given its prediction from the others (perturbation,).

        Strengths would all be about one if responses were normal. In fact, some perturbations do much and many do
        little. Responses of unseen perturbations are drawn accordingly.
        """
        return self._responses.unseen.strength

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
        """Log of the smoothed control histograms, from which shifts start (context, gene, bin)."""
        return np.log(self.groups.smoothed_control).astype(np.float32)

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

    def draw_responses(
        self, labels: Sequence[str], num_draws: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
        response : ndarray, shape (draw, label, factor)
            Draws of the latent responses.
        on_target : ndarray, shape (draw, label, tilt)
            Draws of the on-target tilts.

        Examples
        --------
        >>> response, on_target = fit.draw_responses(["SALL4"], num_draws=200, seed=0)  # doctest: +SKIP
        """
        return self._responses.draw(labels, num_draws, seed)

    @cached_property
    def _doubles(self) -> dict[str, NDArray[np.float64]]:
        """Parameters without a gene dimension, in double precision."""
        small = {str(name): array for name, array in self.parameters.items() if "gene" not in array.dims}
        return {name: array.to_numpy().astype(np.float64) for name, array in small.items()}

    @cached_property
    def _responses(self) -> Responses:
        parameters = self._doubles
        origin = null_response(
            self.parameters["common"].to_numpy(),
            self.parameters["loading"].to_numpy(),
            np.exp(self.log_control),
            int(self.groups.n_control.sum()),
        )
        eigen = KernelEigen(parameters["eigenvalues"], parameters["eigenvectors"])
        known = parameters["response"], parameters["response_scale"]
        n_genes = np.array([len(genes_of(label)) for label in self.perturbations])
        unseen = learn_unseen(*known, eigen, self.factor_weight, origin, n_genes)
        return Responses(self.perturbations, parameters, self.embeddings, self.kernel, eigen, unseen)
