"""A fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert.arguments import check_count, check_seed
from distpert.design import base_histograms, observed_controls, on_target_tilts, target_indices
from distpert.embeddings import Embeddings
from distpert.gaussian_process import leave_one_out
from distpert.histograms import Histograms
from distpert.kernels import Kernel
from distpert.labels import genes_of, listed
from distpert.moments import MOMENTS, histogram_moments
from distpert.prediction import Prediction
from distpert.prior_prediction import PriorPrediction, sample_prior
from distpert.requested import requested_contexts, requested_labels
from distpert.responses import Responses
from distpert.statistics import attributes
from distpert.unseen import KernelEigen, learn_unseen, null_response

if TYPE_CHECKING:
    import os

    import xarray as xr


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """A fitted model; `fit` makes it, `load` reads it back.

    Attributes
    ----------
    histograms : Histograms
        The training counts.
    embeddings : Embeddings
        Of every gene that can be predicted.
    kernel : Kernel
        On embeddings of perturbations.
    parameters : Dataset
        Point estimates ``common`` (context, gene, bin), ``loading`` (factor, gene, bin), ``explained_share`` (factor),
        ``tilt_mean`` and ``tilt_scale`` (tilt), ``log_concentration`` (gene); posterior means and standard deviations
        ``response`` and ``response_scale`` (perturbation, factor), ``on_target`` and ``on_target_scale``
        (perturbation, tilt); ``eigenvalues`` and ``eigenvectors`` of the kernel between training perturbations.
    loss : ndarray, shape (epoch,)
        Negative evidence lower bound, in nats per cell and gene.
    converged : bool
        Whether the stopping rule ended the fit before its last epoch.
    settings : dict
        Seed, priors and optimisation.
    seconds : float
        Wall time of the whole fit, counting and compilation included.
    """

    histograms: Histograms
    embeddings: Embeddings
    kernel: Kernel
    parameters: xr.Dataset
    loss: NDArray[np.float64]
    converged: bool
    settings: dict[str, Any]
    seconds: float

    def __repr__(self) -> str:
        histograms, key = self.histograms, self.histograms.context_key
        measured = sum(bool(self.targets(label)) for label in self.perturbations)
        stopped = "by its stopping rule" if self.converged else "at the last epoch allowed"
        shared = f" or the genes that labels share (weight {self.kernel.shared:g})"
        followed = f"embedding{shared if self.kernel.shared else ''}"
        rows = [
            (
                "training",
                f"{len(self.perturbations):,} perturbations, {int(histograms.n_cells.sum()):,} cells",
            ),
            ("genes", f"{len(histograms.genes):,} in {histograms.n_bins} bins"),
            ("contexts", f"{key}: {listed(self.contexts)}" if key else "none"),
            ("embeddings", repr(self.embeddings).removeprefix("Embeddings: ")),
            (
                "response",
                f"{self.parameters.sizes['factor']} factors; of their variance {self.predictable_share:.0%} can be "
                f"told for a perturbation left out ({self.explained_share:.0%} follows the {followed})",
            ),
            (
                "loss",
                f"{self.loss[0]:.4f} to {self.loss[-1]:.4f} nats per cell and gene, {len(self.loss)} epochs, "
                f"ended {stopped}",
            ),
            ("on target", f"{measured} of {len(self.perturbations)} perturbations act on a measured gene"),
            ("time", f"{self.seconds:.1f} s"),
        ]
        if histograms.constant_genes:
            rows.insert(2, ("constant genes", listed(histograms.constant_genes, 5)))
        return "\n".join(["Fit", *(f"  {name:<15}{what}" for name, what in rows)])

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Perturbations in training."""
        return self.histograms.perturbations

    @cached_property
    def contexts(self) -> tuple[str, ...]:
        """Contexts in training; ``("all",)`` where there is no context key."""
        return self.histograms.contexts

    @property
    def genes(self) -> tuple[str, ...]:
        """Measured genes."""
        return self.histograms.genes

    @property
    def explained_share(self) -> float:
        """Share of the variance of latent responses that follows the kernel, ρ in the model.

        Of responses as they are. Unseen ones are told from tempered responses, whose shares are a little different
        (`distpert.unseen`).

        Factors count by the size of the shift they bring: the mean square of their loadings, weighted by the
        probability of the bins. A kernel of short range can follow nearly all the variance and still tell little of a
        gene that is far from all others: see `predictable_share`.
        """
        return float(self._factor_weight @ self.parameters["explained_share"].to_numpy())

    @property
    def predictable_share(self) -> float:
        """Share of the variance of latent responses that the other perturbations tell of one left out.

        One minus the variance of a response given all others, 1 / (C⁻¹)_pp with C = ρ K + (1 − ρ) I (Rasmussen &
        Williams 2006, eq. 5.12), averaged over training perturbations; factors weighted as in `explained_share`.
        """
        _, variance = leave_one_out(
            self._doubles["explained_share"],
            self._doubles["eigenvalues"],
            self._doubles["eigenvectors"],
            self._doubles["response"],
        )
        return float(self._factor_weight @ (1 - variance.mean(axis=0)))

    @property
    def strengths(self) -> NDArray[np.float64]:
        """How strongly each training perturbation responds, given what the others tell of it (perturbation,).

        About one for all if responses were normal; but some perturbations do much and many do little. See
        `distpert.unseen` for how the response of an unseen one is drawn.
        """
        return self._responses.unseen.strength

    @cached_property
    def log_control(self) -> NDArray[np.float32]:
        """Log of the smoothed control histograms that shifts start from (context, gene, bin)."""
        return np.log(self._base_histograms).astype(np.float32)

    @cached_property
    def control(self) -> NDArray[np.float64]:
        """Control histograms (context, gene, bin), as the control cells show them."""
        return observed_controls(*self._groups)

    def control_moments(self) -> xr.Dataset:
        """Mean, variance, skewness and excess kurtosis of the control cells ([context,] gene)."""
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
        return on_target_tilts(self._base_histograms).astype(np.float32)

    @cached_property
    def centers(self) -> NDArray[np.float32]:
        """Bin centres (gene, bin)."""
        return self.histograms.centers.to_numpy().astype(np.float32)

    def targets(self, label: str) -> list[int]:
        """Positions among the measured genes of those that a label perturbs."""
        (row,) = target_indices([label], self.genes)
        return [int(gene) for gene in row if gene < len(self.genes)]

    def training_counts(self, label: str, context: str) -> NDArray[np.int32] | None:
        """Give the counts (gene, bin) of a group, None if it was not in training."""
        row = self._group_rows.get((label, context))
        return None if row is None else self.histograms.dataset["counts"].to_numpy()[row]

    def predict(
        self,
        perturbations: str | Sequence[str],
        *,
        context: str | Sequence[str] | None = None,
        num_draws: int = 200,
        seed: int = 0,
        progress_bar: bool = True,
    ) -> Prediction:
        """Predict the distributions of all genes under some perturbations.

        Parameters
        ----------
        perturbations
            Labels ``A`` or ``A+B`` (in any order; the prediction has the genes sorted) whose genes have embeddings,
            whether in training or not. For one that was in training, its own cells inform the prediction.
        context
            Context or contexts to predict for; by default all.
        num_draws
            Number of posterior draws.
        seed
            The same seed gives the same draws for a perturbation, whatever else is predicted with it.
        progress_bar
            Whether to show progress when something takes longer than two seconds.

        Returns
        -------
        Prediction

        Raises
        ------
        KeyError
            If a gene has no embedding (names the nearest symbols that have one), or a context is unknown.
        ValueError
            If nothing is to be predicted, a label or context is named twice, or a label is that of the controls.
        """
        seed = check_seed(seed)
        labels = requested_labels(perturbations, self.histograms, self.embeddings)
        contexts = requested_contexts(context, self.histograms)
        num_draws = check_count("num_draws", num_draws)
        response, on_target = self._responses.draw(labels, num_draws, seed)
        return Prediction(
            fit=self,
            perturbations=labels,
            contexts=contexts,
            response=response,
            on_target=on_target,
            seed=seed,
            progress_bar=progress_bar,
        )

    def prior_predictive(
        self,
        perturbations: str | Sequence[str],
        *,
        context: str | Sequence[str] | None = None,
        num_draws: int = 200,
        seed: int = 0,
        progress_bar: bool = True,
    ) -> PriorPrediction:
        """Say what the model expects of some perturbations before it has seen a perturbed cell.

        The whole story is drawn from its priors, given the control histograms, the kernel and the number of factors:
        what a prior predictive check looks at.

        Parameters
        ----------
        perturbations, context, num_draws, progress_bar
            As in `predict`.
        seed
            The same seed gives the same draws for the same perturbations. Their responses are drawn together.

        Returns
        -------
        PriorPrediction

        Raises
        ------
        KeyError, ValueError
            As `predict` does.
        """
        seed = check_seed(seed)
        labels = requested_labels(perturbations, self.histograms, self.embeddings)
        contexts = requested_contexts(context, self.histograms)
        num_draws = check_count("num_draws", num_draws)
        sites = sample_prior(self, labels, num_draws, seed)
        return PriorPrediction(self, labels, contexts, sites, seed, progress_bar)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF file, which `load` reads back; predictions are then the same to the last bit.

        Parameters
        ----------
        path
            Where to write; a file that is there is replaced once the new one is complete.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        IsADirectoryError
            If the path is that of a folder.
        """
        from distpert.storage import save_fit

        save_fit(self, path)

    # ------------------------------------------------------------------------------------------------------- internals

    @cached_property
    def _doubles(self) -> dict[str, NDArray[np.float64]]:
        """Parameters that are not of genes, in double precision."""
        small = {str(name): array for name, array in self.parameters.items() if "gene" not in array.dims}
        return {name: array.to_numpy().astype(np.float64) for name, array in small.items()}

    @cached_property
    def _responses(self) -> Responses:
        parameters, is_control = self._doubles, self._groups[-1]
        origin = null_response(
            self.parameters["common"].to_numpy(),
            self.parameters["loading"].to_numpy(),
            np.exp(self.log_control),
            int(self.histograms.n_cells.to_numpy()[is_control].sum()),
        )
        eigen = KernelEigen(parameters["eigenvalues"], parameters["eigenvectors"])
        known = parameters["response"], parameters["response_scale"]
        n_genes = np.array([len(genes_of(label)) for label in self.perturbations])
        unseen = learn_unseen(*known, eigen, self._factor_weight, origin, n_genes)
        return Responses(self.perturbations, parameters, self.embeddings, self.kernel, eigen, unseen)

    @property
    def _factor_weight(self) -> NDArray[np.float64]:
        """How much of all shifts each factor brings (factor,), summing to one."""
        loading = self.parameters["loading"].to_numpy().astype(np.float64)
        weight = (loading**2 * np.exp(self.log_control).mean(axis=0)).sum(axis=(1, 2))
        return weight / weight.sum()

    @cached_property
    def _base_histograms(self) -> NDArray[np.float64]:
        return base_histograms(*self._groups)

    @property
    def _groups(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Counts, cells, index of the context and whether it is of controls, of each group."""
        dataset = self.histograms.dataset
        context = np.searchsorted(self.contexts, dataset["context"].to_numpy())
        is_control = dataset["perturbation"].to_numpy() == self.histograms.control
        return dataset["counts"].to_numpy(), dataset["n_cells"].to_numpy(), context, is_control

    @cached_property
    def _group_rows(self) -> dict[tuple[str, str], int]:
        dataset = self.histograms.dataset
        names = zip(dataset["perturbation"].to_numpy(), dataset["context"].to_numpy(), strict=True)
        return {(str(label), str(context)): row for row, (label, context) in enumerate(names)}
