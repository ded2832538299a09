"""A fitted model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed
from distpert._shared.labels import listed
from distpert.model.priors import Priors
from distpert.posterior.files import read_posterior, write_posterior
from distpert.posterior.posterior import Posterior
from distpert.predictions.prediction import Prediction
from distpert.predictions.prior import PriorPrediction, sample_prior
from distpert.predictions.requested import requested_contexts, requested_labels


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Posterior):
    """A fitted model; `distpert.fit` makes it, `distpert.load` reads it back.

    Attributes
    ----------
    histograms, embeddings, kernel, parameters
        The posterior; see `Posterior`.
    loss : ndarray, shape (epoch,)
        Negative evidence lower bound, in nats per cell and gene.
    converged : bool
        Whether the stopping rule ended the fit before its last epoch.
    settings : dict
        Seed, priors and optimization.
    seconds : float
        Wall time of the whole fit, counting and compilation included.

    See Also
    --------
    distpert.fit, distpert.load

    Examples
    --------
    >>> adata = distpert.datasets.renge()  # doctest: +SKIP
    >>> fit = distpert.fit(adata, "embeddings", context_key="day")  # doctest: +SKIP
    >>> fit.predict(["SALL4", "NANOG+SOX2"]).summary()  # doctest: +SKIP
    """

    loss: NDArray[np.float64]
    converged: bool
    settings: dict[str, Any]
    seconds: float

    def __repr__(self) -> str:
        histograms, key = self.histograms, self.histograms.context_key
        n_measured = sum(bool(self.targets(label)) for label in self.perturbations)
        stopped = "by the stopping rule" if self.converged else "at the last epoch allowed"
        follows = "embedding"
        if self.kernel.shared:
            follows += f" or the genes that labels share (weight {self.kernel.shared:g})"
        rows = [
            ("training", f"{len(self.perturbations):,} perturbations, {int(histograms.n_cells.sum()):,} cells"),
            ("genes", f"{len(histograms.genes):,} in {histograms.n_bins} bins"),
            ("contexts", f"{key}: {listed(self.contexts)}" if key else "none"),
            ("embeddings", repr(self.embeddings).removeprefix("Embeddings: ")),
            (
                "response",
                f"{self.n_factors} factors; {self.explained_share:.0%} of their variance follows the {follows}",
            ),
            ("unseen", f"expected R² {self.predictable_share:.0%} for the response of a perturbation left out"),
            (
                "loss",
                f"{self.loss[0]:.4f} to {self.loss[-1]:.4f} nats per cell and gene, {len(self.loss)} epochs, ended "
                f"{stopped}",
            ),
            ("on target", f"{n_measured} of {len(self.perturbations)} perturbations target a measured gene"),
            ("time", f"{self.seconds:.1f} s"),
        ]
        if histograms.constant_genes:
            rows.insert(2, ("constant genes", listed(histograms.constant_genes, 5)))
        if spiked := self._spike():
            rows.insert(-2, ("warning", spiked))
        return "\n".join(["Fit", *(f"  {name:<15}{what}" for name, what in rows)])

    def _spike(self) -> str:
        """Return a warning if the loss ended above its lowest value by more than a tenth of its fall, else ""."""
        lowest = self.loss.min()
        if self.loss[-1] - lowest <= 0.1 * (self.loss[0] - lowest):
            return ""
        epoch = int(self.loss.argmin()) + 1
        return f"the loss rose after its lowest value, {lowest:.4f} in epoch {epoch}; try a smaller step_size"

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
        perturbations : str or sequence of str
            Labels ``A``, ``A+B`` or ``A+B+C`` (genes in any order; the prediction has them sorted) of genes with
            embeddings, in training or not. The cells of a perturbation that was in training inform its prediction.
        context : str or sequence of str, optional
            Context or contexts to predict for; by default all.
        num_draws : int
            Number of posterior draws.
        seed : int
            The same seed gives the same draws for a perturbation, whatever else is predicted with it.
        progress_bar : bool
            Whether to show progress when something takes longer than two seconds.

        Returns
        -------
        Prediction

        Raises
        ------
        KeyError
            If a gene has no embedding (names the nearest symbols that have one), or a context is unknown.
        TypeError
            If a label is not a str.
        ValueError
            If there is no label, a label or context is named twice, or a label is that of the controls.

        See Also
        --------
        distpert.Prediction, distpert.Fit.prior_predictive

        Examples
        --------
        >>> prediction = fit.predict(["SALL4", "NANOG+SOX2"], context="5")  # doctest: +SKIP
        """
        labels, contexts = self._requested(perturbations, context)
        num_draws, seed = check_count("num_draws", num_draws), check_seed(seed)
        response, on_target = self.draw_responses(labels, num_draws, seed)
        return Prediction(
            self.histograms,
            labels,
            contexts,
            posterior=self,
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
        """Draw from the prior predictive distribution, before the model has seen perturbed cells.

        All parameters are drawn from their priors, given the control histograms, the kernel and the number of factors.
        Use it for prior predictive checks.

        Parameters
        ----------
        perturbations, context, num_draws, progress_bar
            As in `predict`.
        seed : int
            The same seed gives the same draws for the same perturbations. Draws of one perturbation depend on the
            others, because their responses are drawn together.

        Returns
        -------
        PriorPrediction

        Raises
        ------
        KeyError, TypeError, ValueError
            As in `predict`.

        See Also
        --------
        distpert.predictive_check

        Examples
        --------
        >>> prior = fit.prior_predictive("NANOG")  # doctest: +SKIP
        >>> distpert.predictive_check(prior, adata, "zero_fraction")  # doctest: +SKIP
        """
        labels, contexts = self._requested(perturbations, context)
        num_draws, seed = check_count("num_draws", num_draws), check_seed(seed)
        priors = Priors(**self.settings["priors"])
        return PriorPrediction(
            self.histograms,
            labels,
            contexts,
            posterior=self,
            priors=priors,
            sites=sample_prior(self, priors, labels, num_draws, seed),
            seed=seed,
            progress_bar=progress_bar,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one netCDF file. Predictions of the loaded fit are the same to the last bit.

        Parameters
        ----------
        path : str or path
            Where to write. An existing file is replaced once the new one is complete.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        IsADirectoryError
            If the path is a folder.

        See Also
        --------
        distpert.load

        Examples
        --------
        >>> fit.save("fit.nc")  # doctest: +SKIP
        >>> distpert.load("fit.nc")  # doctest: +SKIP
        """
        facts = {"converged": self.converged, "settings": self.settings, "seconds": self.seconds}
        write_posterior(self, path, loss=self.loss, facts=facts)

    def _requested(
        self, perturbations: str | Sequence[str], context: str | Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        labels = requested_labels(perturbations, self.histograms, self.embeddings)
        return labels, requested_contexts(context, self.histograms)


def load(path: str | os.PathLike[str]) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Fit

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a fit, or was written by a newer version.

    See Also
    --------
    distpert.Fit.save, distpert.load_histograms

    Examples
    --------
    >>> fit = distpert.load("fit.nc")  # doctest: +SKIP
    """
    return Fit(**read_posterior(path))
