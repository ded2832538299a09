"""The function `fit`, from a screen to a fitted model."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distpert._shared.arguments import check_count, check_seed, check_type
from distpert._shared.labels import genes_of, listed
from distpert.embeddings.sources import as_embeddings
from distpert.embeddings.vectors import Embeddings
from distpert.fitting.fitted import Fit
from distpert.fitting.prepare import Prepared, name_parameters, prepare
from distpert.histograms.counting import count_screen
from distpert.histograms.histograms import Histograms
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.opening import annotated
from distpert.histograms.screen import read_screen
from distpert.model.inference import optimize
from distpert.model.optimization import Optimization
from distpert.model.priors import Priors
from distpert.model.sampling import Sampling, bind_model, run_chains
from distpert.posterior.diagnostics import GOOD_R_HAT, diagnose
from distpert.posterior.samples import name_samples, one_draw
from distpert.training.checks import check_controls, check_embedded
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    from os import PathLike

    from distpert.embeddings.sources import EmbeddingSources
    from distpert.histograms.opening import ScreenSource

WORST_R_HAT = 1.05  # above which chains are too far apart to be used
FEW_CELLS = 10  # median number of cells of a perturbation, up to which intervals may be too narrow
_NO_EMBEDDING = "kept in training, but other perturbations are not predicted from them"


def fit(
    adata: ScreenSource | Histograms,
    embeddings: EmbeddingSources,
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    context_key: str | None = None,
    layer: str | None = None,
    gene_symbols: str | None = None,
    n_bins: int = 15,
    n_factors: int | None = None,
    priors: Priors | None = None,
    inference: Literal["svi", "nuts"] = "svi",
    optimization: Optimization | None = None,
    sampling: Sampling | None = None,
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    progress_bar: bool = True,
) -> Fit:
    """Learn how perturbations change the distribution of every gene's expression.

    Counts the cells of each perturbation in each bin of each gene, then fits a hierarchical Dirichlet-categorical model
    to the counts. A perturbation has a latent response, predicted in part from the embedding of its gene. The response
    shifts the logits of the control histograms of all genes [1]_.

    Parameters
    ----------
    adata : AnnData, path, list of these, or Histograms
        Cells × genes, log1p of counts per 10,000, one perturbation label for each cell, in memory or not (see
        `count_histograms`); or histograms from `count_histograms`, in which case the arguments from
        ``perturbation_key`` to ``n_bins`` do not apply.
    embeddings : Embeddings, DataFrame, dict, str, or a list or dict of these
        What is known of genes: `distpert.datasets.gene_embeddings`, a DataFrame (genes × dims), a dict of vectors, or
        the key of either in ``adata.uns``. The sources of a list stay apart. Each has a weight of its own, chosen by
        marginal likelihood, and a gene needs only one of them. A dict of DataFrames names them. For a file, see
        `read_embeddings`.
    perturbation_key, control : str
        Column of ``adata.obs`` with the labels (``A``, ``A+B``, ``A+B+C``), and the label of control cells.
    context_key : str, optional
        Column of ``adata.obs`` with a context such as day, batch or cell line. Each context has its own control
        histograms and common shift; responses are shared.
    layer : str, optional
        Layer to read instead of ``X``.
    gene_symbols : str, optional
        Column of ``adata.var`` with gene symbols, if ``var_names`` are something else.
    n_bins : int
        Bins for each gene.
    n_factors : int, optional
        Largest number of factors of the latent response. By default 24, and at most one less than there are
        perturbations. A factor that the data do not need shrinks to nothing. More of them cost time, but no
        accuracy.
    priors : Priors, optional
        Prior scales. Those of shifts are of the sizes that are learned, so they matter little.
    inference : {"svi", "nuts"}
        ``"svi"``: stochastic variational inference, for all screens. ``"nuts"``: Markov chains with the no-U-turn
        sampler on the same model, for small ones; minutes for 12 perturbations and 15 genes, and the referee for the
        first.
    optimization : Optimization, optional
        Settings of the optimization, for ``"svi"``.
    sampling : Sampling, optional
        Settings of the chains, for ``"nuts"``.
    checkpoint : str or path, optional
        File in which the optimization keeps its state, about once a minute. If the same fit is started again after an
        interruption, it goes on from there, and the result is the same.
    seed : int
        The same seed gives the same fit.
    progress_bar : bool
        Whether to show progress.

    Returns
    -------
    Fit

    Raises
    ------
    TypeError
        If cells, embeddings, priors, optimization or sampling are of another type.
    ValueError
        If there are no control cells, values are NaN or negative, a context has no controls, genes or embeddings are
        malformed, fewer than 3 perturbations have an embedding, there is no such inference, settings belong to the
        other one, or the checkpoint is damaged or of another fit.
    FileNotFoundError
        If there is no such file of cells, or no folder for the checkpoint.
    KeyError
        If a column, layer or key is unknown.

    Warns
    -----
    UserWarning
        For values that do not look like log1p of normalized counts; for cells without a label; for perturbations with
        fewer than 2 cells; if most perturbations have 10 cells or fewer; for perturbed genes that some or all sources
        of embeddings lack; for labels that look like those of controls; for contexts with only control cells; if no
        perturbed gene is measured; and if Markov chains diverge or do not agree.

    See Also
    --------
    distpert.Fit.predict, distpert.count_histograms, distpert.read_embeddings, distpert.cross_validate

    References
    ----------
    .. [1] Ramakrishnan et al. (2025), arXiv:2507.02980, on which the model builds. The page "The model" of the
       documentation describes the whole model.

    Examples
    --------
    >>> adata = distpert.datasets.renge()  # doctest: +SKIP
    >>> fit = distpert.fit(adata, "embeddings", context_key="day")  # doctest: +SKIP
    >>> fit.predict(["SALL4", "NANOG+SOX2"]).summary()  # doctest: +SKIP
    """
    started = time.perf_counter()
    priors = Priors() if priors is None else priors
    if inference not in ("svi", "nuts"):
        raise ValueError(f"inference must be 'svi' or 'nuts', not {inference!r}")
    other, needs = ("sampling", "nuts") if inference == "svi" else ("optimization", "svi")
    if (sampling if inference == "svi" else optimization) is not None:
        raise ValueError(f"{other}= belongs to inference={needs!r}, not to inference={inference!r}")
    optimization = Optimization() if optimization is None else optimization
    sampling = Sampling() if sampling is None else sampling
    check_type("priors", priors, Priors, made_by="distpert.Priors(...)")
    check_type("optimization", optimization, Optimization, made_by="distpert.Optimization(...)")
    check_type("sampling", sampling, Sampling, made_by="distpert.Sampling(...)")
    seed = check_seed(seed)
    if checkpoint is not None:
        if inference != "svi":
            raise ValueError("checkpoint= belongs to inference='svi'; chains cannot go on from a file")
        if not Path(checkpoint).parent.is_dir():
            raise FileNotFoundError(f"no such folder: {Path(checkpoint).parent}. Create it first")
    if n_factors is not None:
        n_factors = check_count("n_factors", n_factors)
    keys = ScreenKeys(
        perturbation_key=perturbation_key,
        control=control,
        context_key=context_key,
        layer=layer,
        gene_symbols=gene_symbols,
    )
    if isinstance(adata, Histograms):
        if keys != ScreenKeys() or n_bins != 15:
            raise ValueError(
                "the histograms are already counted: perturbation_key, control, context_key, layer, gene_symbols and "
                "n_bins belong to count_histograms"
            )
        histograms = adata
        check_controls(histograms)
        embeddings = _embedded(embeddings, None, histograms.perturbations, histograms.genes)
    else:
        # Embeddings are checked before the expression is read, which can take long. Their warnings come after.
        check = partial(_check_embeddings, embeddings, adata)
        screen = read_screen(adata, keys, before_values=check, progress_bar=progress_bar)
        embeddings = _embedded(embeddings, adata, screen.perturbations, screen.genes)
        histograms = count_screen(screen, n_bins=n_bins, progress_bar=progress_bar)

    groups = TrainingGroups(histograms)
    _warn_of_bare_contexts(groups)
    _warn_of_other_names(histograms)
    _warn_of_few_cells(groups)
    prepared = prepare(groups, embeddings, n_factors, priors)
    settings = {"inference": inference, "seed": seed, "priors": asdict(priors)}
    if inference == "nuts":
        return _fit_chains(groups, embeddings, prepared, priors, sampling, settings, started, progress_bar)
    result = optimize(
        prepared.design,
        prepared.batch,
        prepared.start,
        n_factors=prepared.n_factors,
        priors=priors,
        settings=optimization,
        seed=seed,
        progress_bar=progress_bar,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )
    return Fit(
        histograms=histograms,
        embeddings=embeddings,
        kernel=prepared.kernel,
        parameters=name_parameters(result.parameters, groups, prepared.design),
        loss=result.loss,
        converged=result.converged,
        settings=settings | {"optimization": asdict(optimization)},
        seconds=time.perf_counter() - started,
    )


def _fit_chains(
    groups: TrainingGroups,
    embeddings: Embeddings,
    prepared: Prepared,
    priors: Priors,
    sampling: Sampling,
    settings: dict[str, Any],
    started: float,
    progress_bar: bool,
) -> Fit:
    """Run Markov chains and warn if they do not agree."""
    story = bind_model(prepared.design, prepared.batch, prepared.start, n_factors=prepared.n_factors, priors=priors)
    chains = run_chains(story, sampling, seed=settings["seed"], progress_bar=progress_bar)
    samples = name_samples(chains.samples, groups, prepared.design)
    found = {"divergences": chains.divergences, "at_greatest_depth": chains.at_depth, **diagnose(samples, groups)}
    if chains.divergences or found["r_hat"] > WORST_R_HAT:
        warnings.warn(
            f"{chains.divergences} of {samples.sizes['chain'] * samples.sizes['draw']} transitions diverged, and R-hat "
            f"is up to {found['r_hat']:.2f}. Run longer chains in smaller steps: "
            f"sampling=Sampling(num_warmup={2 * sampling.num_warmup}, num_samples={2 * sampling.num_samples}, "
            "target_accept_prob=0.98)",
            UserWarning,
            stacklevel=3,
        )
    return Fit(
        histograms=groups.histograms,
        embeddings=embeddings,
        kernel=prepared.kernel,
        parameters=one_draw(samples, prepared.design),
        samples=samples,
        loss=np.empty(0),
        converged=not chains.divergences and found["r_hat"] <= GOOD_R_HAT,
        settings=settings | {"sampling": asdict(sampling)},
        seconds=time.perf_counter() - started,
        diagnostics=found,
    )


def _embedded(
    embeddings: EmbeddingSources, adata: ScreenSource | None, labels: tuple[str, ...], genes: tuple[str, ...]
) -> Embeddings:
    """Return the embeddings of the perturbed genes."""
    found = as_embeddings(embeddings, annotated(adata), genes=[*labels, *genes])
    check_embedded(labels, found, others=_NO_EMBEDDING, stacklevel=4)
    return found


def _check_embeddings(
    embeddings: EmbeddingSources, adata: ScreenSource, labels: tuple[str, ...], genes: tuple[str, ...]
) -> None:
    """Raise what `_embedded` would raise, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _embedded(embeddings, adata, labels, genes)


def _warn_of_bare_contexts(groups: TrainingGroups) -> None:
    """Warn of contexts without perturbed cells."""
    if bare := [groups.contexts[c] for c in np.flatnonzero(groups.n_perturbed == 0)]:
        warnings.warn(
            f"only control cells in {listed(bare)}: the common shift there is the mean of the other contexts",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_other_names(histograms: Histograms) -> None:
    """Warn if none of the perturbed genes is measured, mostly because they have other names."""
    perturbed = {gene for label in histograms.perturbations for gene in genes_of(label)}
    if not perturbed.intersection(histograms.genes):
        warnings.warn(
            f"none of the {len(perturbed)} perturbed genes ({listed(sorted(perturbed), 3)}) is among the measured "
            f"genes ({listed(histograms.genes, 3)}), so the effect of a perturbation on its own gene cannot be "
            "learned. If they have other names, pass gene_symbols=, a column of adata.var with the names of the labels",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_few_cells(groups: TrainingGroups) -> None:
    """Warn of few cells, with which intervals may be too narrow."""
    n_cells = np.bincount(groups.perturbation, groups.n_cells[groups.perturbed])
    if (typical := np.median(n_cells)) <= FEW_CELLS:
        warnings.warn(
            f"the perturbations have {typical:g} cells at the median. With {FEW_CELLS} cells or fewer, intervals may "
            "be too narrow: those of 90 % hold 78 to 94 % of the true moments of simulated screens. "
            "Pool guides or replicates, or leave out perturbations with few cells",
            UserWarning,
            stacklevel=3,
        )
