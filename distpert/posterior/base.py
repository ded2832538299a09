"""The posterior of a screen: frozen data, and draws of responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.model.design import on_target_tilts, target_indices
from distpert.model.gaussian_process import leave_one_out
from distpert.model.kernels import Kernel
from distpert.posterior.inactive import Inactive, find_inactive
from distpert.posterior.program_noise import program_noise, widen
from distpert.posterior.responses import DrawnResponses, Responses
from distpert.posterior.samples import SampledResponses, flatten
from distpert.posterior.shared import SharedPosterior
from distpert.posterior.unseen import KernelEigen, Unseen, learn_unseen, null_response
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False, repr=False)
class BasePosterior:
    """Data and draws of a posterior; `Posterior` has the same attributes, says what they are, and adds summaries."""

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
    def small_parameters(self) -> dict[str, NDArray[np.float64]]:
        """Parameters without a gene dimension, in double precision."""
        small = {str(name): array for name, array in self.parameters.items() if "gene" not in array.dims}
        return {name: array.to_numpy().astype(np.float64) for name, array in small.items()}

    @cached_property
    def _responses(self) -> Responses | SampledResponses:
        if self.samples is not None:
            return SampledResponses(self.perturbations, self.samples, self.embeddings, self.kernel, self.eigen)
        known = self.perturbations, self.small_parameters, self.embeddings, self.kernel
        return Responses(*known, self.eigen, self.unseen, self._seen, self.inactive.probability)

    @cached_property
    def _seen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Posterior means and standard deviations of responses, whose noise includes programs of genes."""
        values, groups = self.small_parameters, self.groups
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
        predicted, variance = leave_one_out(values["explained_share"], *self.eigen, values["response"])
        return widen(*known, predicted, variance, self.unseen.strength, noise)

    @cached_property
    def inactive(self) -> Inactive:
        """Posterior probability of each training perturbation to do nothing."""
        values = self.small_parameters
        predicted, variance = leave_one_out(values["explained_share"], *self.eigen, values["response"])
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
    def eigen(self) -> KernelEigen:
        """Eigenvalues and eigenvectors of the kernel between training perturbations."""
        return KernelEigen(self.small_parameters["eigenvalues"], self.small_parameters["eigenvectors"])

    @cached_property
    def unseen(self) -> Unseen:
        """What training perturbations that are left out tell of the responses of unseen ones."""
        parameters = self.small_parameters
        origin = null_response(
            self.parameters["common"].to_numpy(),
            self.parameters["loading"].to_numpy(),
            np.exp(self.log_control),
            int(self.groups.n_control.sum()),
        )
        known = parameters["response"], parameters["response_scale"]
        n_genes = np.array([len(genes_of(label)) for label in self.perturbations])
        return learn_unseen(*known, self.eigen, self.factor_weight, origin, n_genes)
