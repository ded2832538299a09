"""A fitted model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed, quantile_levels
from distpert._shared.labels import genes_of, listed
from distpert.embeddings.sources import as_embeddings
from distpert.embeddings.vectors import Embeddings
from distpert.fitting.prepare import prepare
from distpert.model.priors import Priors
from distpert.model.sampling import NumpyroModel, bind_model
from distpert.posterior.diagnostics import GOOD_R_HAT, diagnose
from distpert.posterior.files import read_posterior, write_posterior
from distpert.posterior.posterior import Posterior
from distpert.posterior.samples import name_samples, one_draw
from distpert.predictions.prediction import Prediction
from distpert.predictions.prior import PriorPrediction, sample_prior
from distpert.predictions.ranking import Ranking, Target, rank_labels
from distpert.predictions.requested import requested_contexts, requested_labels


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Posterior):
    """A fitted model; `distpert.fit` makes it, `distpert.load` reads it back.

    Attributes
    ----------
    histograms, embeddings, kernel, parameters, samples
        The posterior; see `Posterior`.
    loss : ndarray, shape (epoch,)
        Negative evidence lower bound, in nats per cell and gene. Empty for Markov chains.
    converged : bool
        Whether the stopping rule ended the fit before its last epoch; for chains, whether no transition diverged and
        the largest R-hat is at most 1.01.
    settings : dict
        Inference, seed, priors, and how the optimization or the sampling ran.
    seconds : float
        Wall time of the whole fit, counting and compilation included.
    diagnostics : dict
        Of chains: ``divergences``, ``at_greatest_depth`` (share of transitions), and ``r_hat`` (largest) and ``n_eff``
        (smallest) over what the data identify: expected means of all perturbations and genes, tilts, concentrations.
        Loadings and responses can be rotated against each other, so their own R-hat has no meaning. Else empty.

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
    diagnostics: dict[str, float] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        histograms, key = self.histograms, self.histograms.context_key
        n_measured = sum(bool(self.targets(label)) for label in self.perturbations)
        follows = "embedding"
        if self.kernel.shared:
            follows += f" or the genes that labels share (weight {self.kernel.shared:g})"
        low, share, high = self.explained_share_interval()
        rows = [
            ("training", f"{len(self.perturbations):,} perturbations, {int(histograms.n_cells.sum()):,} cells"),
            ("genes", f"{len(histograms.genes):,} in {histograms.n_bins} bins"),
            ("contexts", f"{key}: {listed(self.contexts)}" if key else "none"),
            ("embeddings", self._known_of_genes()),
            (
                "response",
                f"{self.n_factors} factors; {share:.0%} ({low:.0%} to {high:.0%}) of their variance follows the "
                f"{follows}",
            ),
            ("unseen", self._left_out()),
            (
                "concentration",
                "{1:,.0f} ({0:,.0f} to {2:,.0f}) for a typical gene".format(*self.concentration_interval()),
            ),
            *self._how_fitted(),
            ("on target", f"{n_measured} of {len(self.perturbations)} perturbations target a measured gene"),
            ("time", f"{self.seconds:.1f} s"),
        ]
        if self.embeddings.n_sources > 1:
            each = zip(self.kernel.source_weights, self.embeddings.source_names, strict=True)
            told = ", ".join(f"{name} {weight:.0%}" for weight, name in sorted(each, reverse=True))
            rows.insert(4, ("weights", told))
        if histograms.constant_genes:
            rows.insert(2, ("constant genes", listed(histograms.constant_genes, 5)))
        return "\n".join(["Fit", *(f"  {name:<15}{what}" for name, what in rows)])

    def _known_of_genes(self) -> str:
        """Say how many genes have embeddings; sources are named with their weights."""
        if self.embeddings.n_sources == 1:
            return repr(self.embeddings).removeprefix("Embeddings: ")
        return f"{len(self.embeddings.genes):,} genes, {self.embeddings.n_sources} sources"

    def _left_out(self) -> str:
        """Say how well responses are predicted from other perturbations."""
        found = [f"{round(value, 2) + 0:.0%} for {what}" for what, value in self.left_out_r2().items()]
        return f"R² of responses left out: {', '.join(found)}"

    def _how_fitted(self) -> list[tuple[str, str]]:
        """Rows on the optimization, or on the chains."""
        if self.samples is not None:
            found, sizes = self.diagnostics, self.samples.sizes
            text = f"{sizes['chain']} of {sizes['draw']:,} draws"
            told = [f"{found['divergences']:.0f} divergences"] if "divergences" in found else []
            told += [f"R-hat up to {found['r_hat']:.2f}", f"effective draws from {found['n_eff']:.0f}"]
            text = f"{text}; {', '.join(told)}"
            return [("chains", text)]
        stopped = "by the stopping rule" if self.converged else "at the last epoch allowed"
        rows = [
            (
                "loss",
                f"{self.loss[0]:.4f} to {self.loss[-1]:.4f} nats per cell and gene, {len(self.loss)} epochs, ended "
                f"{stopped}",
            )
        ]
        lowest = self.loss.min()
        if self.loss[-1] - lowest > 0.1 * (self.loss[0] - lowest):
            epoch = int(self.loss.argmin()) + 1
            rose = f"the loss rose after its lowest value, {lowest:.4f} in epoch {epoch}; try a smaller step_size"
            rows.append(("warning", rose))
        return rows

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
            Number of posterior draws. Of Markov chains, as many are taken from each, evenly spaced.
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
            If there is no label, a label or context is named twice, a label is that of the controls, or chains do not
            have so many draws, the same number of each.

        See Also
        --------
        distpert.Prediction, distpert.Fit.prior_predictive

        Examples
        --------
        >>> prediction = fit.predict(["SALL4", "NANOG+SOX2"], context="5")  # doctest: +SKIP
        """
        labels, contexts = self._requested(perturbations, context)
        num_draws, seed = check_count("num_draws", num_draws), check_seed(seed)
        drawn = self.draw_responses(labels, num_draws, seed)
        return Prediction(
            self.histograms,
            labels,
            contexts,
            posterior=self,
            response=drawn.response,
            on_target=drawn.on_target,
            inactive=drawn.inactive,
            seed=seed,
            progress_bar=progress_bar,
        )

    def rank(
        self,
        perturbations: Sequence[str] | None = None,
        *,
        target: Target = None,
        context: str | Sequence[str] | None = None,
        top: int = 20,
        n_exact: int = 20,
        num_draws: int = 200,
        seed: int = 0,
        ci_prob: float = 0.9,
        progress_bar: bool = True,
    ) -> Ranking:
        r"""Rank perturbations by how much they do, or by how much of what is wanted.

        The effect of a perturbation is the root mean square, over genes, of the shift of the mean from control, in
        units of the standard deviation of the control cells. The genes that are perturbed do not count. With a target,
        the order is by similarity: the cosine of these shifts with the wanted ones.

        Parameters
        ----------
        perturbations : sequence of str, optional
            Labels to rank; by default all perturbations in training and all genes with an embedding.
        target : optional
            What is wanted: a Series or dict of shifts by gene, in the units of the data; a list of genes to raise, or
            ``{"up": genes, "down": genes}``, each by one standard deviation; an AnnData of cells to look like, whose
            means count, in the layer that was fitted; or the label of another perturbation. Only the genes of the
            target count.
        context : str or sequence of str, optional
            Context or contexts to rank in; by default all together.
        top : int
            Number of first places that ``prob_top`` is about.
        n_exact : int
            Number of perturbations, the first ones, for which exact draws are made as well; 0 for none.
        num_draws : int
            Number of posterior draws.
        seed : int
            As in `predict`.
        ci_prob : float
            Probability of the intervals.
        progress_bar : bool
            Whether to show progress when something takes longer than two seconds.

        Returns
        -------
        Ranking
            Its table has a row for each perturbation: medians and intervals ``effect``, ``effect_lower``,
            ``effect_upper``, and with a target ``similarity``, ``similarity_lower``, ``similarity_upper``;
            ``prob_top``, the probability to be among the first; ``told``, the share of the response that embeddings
            tell (see `told`); ``seen``, whether it is in training; and the median of exact draws.

        Raises
        ------
        KeyError
            If a label has no embedding, a context is unknown, or no gene of the target is measured.
        TypeError
            If the target has another form.
        ValueError
            If a number is out of its range, the target names a gene twice, or wanted shifts are not finite or all 0.

        Warns
        -----
        UserWarning
            If genes of the target are not measured.

        See Also
        --------
        distpert.Ranking, distpert.plots.plot_ranking, distpert.Prediction.effects

        Notes
        -----
        Means of histograms are linear in the response to first order, so the squared effect is a quadratic form of it,
        with coefficients that are summed over genes once. Draws of the responses are exact; loadings enter by their
        posterior means and variances. Of Markov chains, all values are exact.

        Examples
        --------
        >>> fit.rank(top=10)  # doctest: +SKIP
        >>> fit.rank(target={"up": ["NANOG", "SOX2"], "down": ["GATA6"]}).to_dataframe()  # doctest: +SKIP
        """
        if perturbations is None:
            perturbations = sorted({*self.perturbations, *self.embeddings.genes} - {self.histograms.control})
        labels, contexts = self._requested(perturbations, context)
        if isinstance(target, str):
            ((target,), _) = self._requested(target, None)
        quantile_levels(ci_prob)
        return rank_labels(
            self,
            self.predict,
            labels,
            contexts,
            target,
            top=check_count("top", top),
            n_exact=check_count("n_exact", n_exact, 0),
            num_draws=check_count("num_draws", num_draws),
            seed=check_seed(seed),
            ci_prob=ci_prob,
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

    def numpyro_model(self) -> NumpyroModel:
        """Return the numpyro model of this screen and its data, for inference of your own.

        Returns
        -------
        NumpyroModel

        See Also
        --------
        distpert.Fit.with_samples

        Examples
        --------
        >>> story = fit.numpyro_model()  # doctest: +SKIP
        >>> numpyro.infer.log_likelihood(story.model, samples, story.design, story.batch)  # doctest: +SKIP
        """
        priors = Priors(**self.settings["priors"])
        prepared = prepare(self.groups, self.embeddings, self.n_factors, priors)
        return bind_model(prepared.design, prepared.batch, prepared.start, n_factors=prepared.n_factors, priors=priors)

    def with_samples(self, samples: Mapping[str, Any], **diagnostics: float) -> Fit:
        """Return a fit whose predictions come from draws of your own.

        Parameters
        ----------
        samples : dict of array
            Draws of all sites of `numpyro_model`, each (chain, draw, ...), as
            ``mcmc.get_samples(group_by_chain=True)`` returns them.
        **diagnostics : float
            Kept in `diagnostics`, beside R-hat and effective draws.

        Returns
        -------
        Fit
            With the same histograms, embeddings, kernel and settings.

        Raises
        ------
        KeyError
            If a site is missing.
        ValueError
            If a site has another shape, or is not finite.

        See Also
        --------
        distpert.Fit.numpyro_model

        Examples
        --------
        >>> own = fit.with_samples(mcmc.get_samples(group_by_chain=True))  # doctest: +SKIP
        >>> own.predict("NANOG").summary()  # doctest: +SKIP
        """
        design = self.numpyro_model().design
        named = name_samples(samples, self.groups, design)
        found = {**diagnostics, **diagnose(named, self.groups)}
        return replace(
            self,
            parameters=one_draw(named, design),
            samples=named,
            loss=np.empty(0),
            converged=found["r_hat"] <= GOOD_R_HAT and not found.get("divergences"),
            diagnostics=found,
        )

    def signatures(self) -> Embeddings:
        """Return the responses of this screen as a source of embeddings for another screen.

        Genes that act alike in one cell line tend to act alike in another. Each gene that was perturbed by itself has
        the vector of its latent response, from control, in units of the shifts that it causes. Few sources tell more,
        but only of these genes. Never use a screen for its own cells, or for a replicate that shares them: they would
        predict themselves.

        Returns
        -------
        Embeddings
            One source, ``"signatures"``.

        Raises
        ------
        ValueError
            If no gene was perturbed by itself.

        See Also
        --------
        distpert.fit

        Examples
        --------
        >>> other = distpert.fit(k562, distpert.datasets.gene_embeddings())  # doctest: +SKIP
        >>> fit = distpert.fit(rpe1, [distpert.datasets.gene_embeddings(), other.signatures()])  # doctest: +SKIP
        """
        import pandas as pd

        singles = [i for i, label in enumerate(self.perturbations) if len(genes_of(label)) == 1]
        if not singles:
            raise ValueError("this screen perturbs no gene by itself, so there are no signatures of genes")
        response = self.latent.response[singles] + self.unseen.center
        vectors = pd.DataFrame(response * np.sqrt(self.latent.weight), [self.perturbations[i] for i in singles])
        return as_embeddings({"signatures": vectors})

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
        facts = {
            "converged": self.converged,
            "settings": self.settings,
            "seconds": self.seconds,
            "diagnostics": self.diagnostics,
        }
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
