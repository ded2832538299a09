"""The way in: `fit` a screen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert.arguments import check_count, check_seed, check_type
from distpert.design import base_histograms, bin_strides, on_target_tilts, target_indices
from distpert.embeddings import Embeddings, as_embeddings
from distpert.fitted import Fit
from distpert.histograms import Histograms
from distpert.inference import Optimisation, optimise
from distpert.kernels import Kernel, choose_kernel
from distpert.labels import genes_of, listed
from distpert.model import Batch, Design, Priors
from distpert.screen import read_screen
from distpert.screen_counts import count_screen
from distpert.trainable import check_controls, check_embedded
from distpert.warm_start import factorise, learn_tilts

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.embeddings import EmbeddingSources

_NO_EMBEDDING = "kept in training, but they tell nothing of other perturbations"


def fit(
    adata: AnnData | Histograms,
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
    optimisation: Optimisation | None = None,
    seed: int = 0,
    progress_bar: bool = True,
) -> Fit:
    """Learn how perturbations change the distribution of every gene's expression.

    Counts the cells of each perturbation in each bin of each gene, then fits a hierarchical Dirichlet-categorical
    model to the counts: a perturbation has a latent response, partly told by its gene's embedding, that shifts
    the logits of the control histograms of all genes.

    Parameters
    ----------
    adata
        Cells × genes, log1p of counts per 10,000, one perturbation label a cell; or histograms that `count_histograms`
        made, in which case the arguments from ``perturbation_key`` to ``n_bins`` do not apply.
    embeddings
        Gene embeddings: a DataFrame (genes × dims), a dict of vectors, the key of either in ``adata.uns``, or a
        list of these, which are standardised one by one and concatenated. For a file, see `read_embeddings`.
    perturbation_key, control
        Column of ``adata.obs`` with the labels (``A``, ``A+B``), and the label of control cells.
    context_key
        Column of ``adata.obs`` with a context such as day, batch or cell line: each has its own control
        histograms, the shift is shared.
    layer
        Layer to read instead of ``X``.
    gene_symbols
        Column of ``adata.var`` with gene symbols, where ``var_names`` are something else.
    n_bins
        Bins a gene.
    n_factors
        Factors of the latent response. By default one for each four perturbations, but no fewer than 2 and no more
        than 20; at most one less than there are perturbations. With K factors and P perturbations, intervals of unseen
        ones widen by the root of 1 / (1 - K / P): factors that are as many as perturbations can fit anything.
    priors, optimisation
        Scales of the priors and settings of the optimisation; by default those chosen by cross-validation on unseen
        perturbations.
    seed
        The same seed gives the same fit.
    progress_bar
        Whether to show progress.

    Returns
    -------
    Fit

    Raises
    ------
    TypeError
        If cells, embeddings, priors or optimisation are of another type.
    ValueError
        If there are no control cells, values are NaN or negative, a context has no controls, genes or embeddings are
        malformed, or fewer than 3 perturbations have an embedding.
    KeyError
        If a column, layer or key is unknown.

    Warns
    -----
    UserWarning
        For values that look like raw counts; for cells without a label; for perturbations of fewer than 2 cells; for
        perturbed genes without an embedding, which stay in the training but tell nothing of others; for labels that
        look like those of controls; and where no perturbed gene is measured.

    Notes
    -----
    The model, and what decided it, are in the documentation under "The model". It starts from [1]_.

    References
    ----------
    .. [1] Ramakrishnan et al. (2025), arXiv:2507.02980.
    """
    started = time.perf_counter()
    priors = Priors() if priors is None else priors
    optimisation = Optimisation() if optimisation is None else optimisation
    check_type("priors", priors, Priors, made_by="distpert.Priors(...)")
    check_type("optimisation", optimisation, Optimisation, made_by="distpert.Optimisation(...)")
    _check_priors(priors)
    seed = check_seed(seed)
    counted = isinstance(adata, Histograms)
    if n_factors is not None:
        n_factors = check_count("n_factors", n_factors)
    if counted:
        histograms = adata
        given = (perturbation_key, control, context_key, layer, gene_symbols, n_bins)
        if given != ("perturbation", "control", None, None, None, 15):
            raise ValueError(
                "the histograms are already counted: perturbation_key, control, context_key, layer, gene_symbols and "
                "n_bins belong to count_histograms"
            )
        check_controls(histograms)
        labels = histograms.perturbations
        embeddings = as_embeddings(embeddings, genes=[*labels, *histograms.genes])
        check_embedded(labels, embeddings, others=_NO_EMBEDDING)
    else:
        screen = read_screen(
            adata,
            perturbation_key=perturbation_key,
            control=control,
            context_key=context_key,
            layer=layer,
            gene_symbols=gene_symbols,
        )
        labels = tuple(sorted(set(screen.perturbation.tolist()) - {"", screen.control}))
        embeddings = as_embeddings(embeddings, adata, genes=[*labels, *screen.genes])
        check_embedded(labels, embeddings, others=_NO_EMBEDDING)
        histograms = count_screen(screen, n_bins=n_bins, progress_bar=progress_bar)

    _warn_of_bare_contexts(histograms)
    _warn_of_other_names(histograms)
    design, groups, start, kernel = _prepare(histograms, embeddings, n_factors, priors)
    result = optimise(
        design,
        groups,
        start,
        n_factors=len(start["loading"]),
        priors=priors,
        settings=optimisation,
        seed=seed,
        progress_bar=progress_bar,
    )
    return Fit(
        histograms=histograms,
        embeddings=embeddings,
        kernel=kernel,
        parameters=_label_parameters(result.parameters, histograms, design),
        loss=result.loss,
        converged=result.converged,
        settings={
            "seed": seed,
            "priors": priors._asdict(),
            "optimisation": asdict(optimisation),
        },
        seconds=time.perf_counter() - started,
    )


def _check_priors(priors: Priors) -> None:
    """Refuse scales, shares and correlations that no distribution has."""
    scale = ("a number above 0", (), lambda value: value > 0)
    wanted: dict[str, tuple[str, tuple[int, ...], Callable[[NDArray], bool | np.bool_]]] = {
        "common": scale,
        "context": scale,
        "loading": scale,
        "loading_smoothness": ("from 0 to below 1", (), lambda value: 0 <= np.float32(value) < 1),
        "log_concentration": ("a mean, and a standard deviation above 0", (2,), lambda values: values[1] > 0),
        "share": ("two numbers above 0", (2,), lambda values: (values > 0).all()),
    }
    for name, (what, shape, holds) in wanted.items():
        given = getattr(priors, name)
        values = np.asarray(given)
        numbers = values.dtype.kind in "iuf" and values.shape == shape and np.isfinite(values).all()
        if not (numbers and holds(values)):
            raise ValueError(f"Priors({name}=...) must be {what}, not {given!r}")


def _warn_of_bare_contexts(histograms: Histograms) -> None:
    """Name contexts in which nothing was perturbed."""
    groups = histograms.dataset
    perturbed = groups["context"].to_numpy()[(groups["perturbation"] != histograms.control).to_numpy()]
    if bare := sorted(set(histograms.contexts) - set(perturbed.tolist())):
        warnings.warn(
            f"only control cells in {listed(bare)}: what all perturbations do there is taken from the other contexts",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_other_names(histograms: Histograms) -> None:
    """Say so where none of the perturbed genes is measured, which is mostly a matter of names."""
    perturbed = {gene for label in histograms.perturbations for gene in genes_of(label)}
    if not perturbed.intersection(histograms.genes):
        warnings.warn(
            f"none of the {len(perturbed)} perturbed genes ({listed(sorted(perturbed), 3)}) is among those measured "
            f"({listed(histograms.genes, 3)}), so that nothing is learned of perturbed genes themselves. If these have "
            "other names, pass gene_symbols=, the column of adata.var that has the same",
            UserWarning,
            stacklevel=3,
        )


def _prepare(
    histograms: Histograms, embeddings: Embeddings, n_factors: int | None, priors: Priors
) -> tuple[Design, Batch, dict[str, NDArray], Kernel]:
    """Arrays that the model conditions on, the groups to fit, where to start, and the kernel."""
    perturbations, contexts = histograms.perturbations, histograms.contexts
    labels = histograms.dataset["perturbation"].to_numpy()
    group_context = np.searchsorted(contexts, histograms.dataset["context"].to_numpy())
    counts, n_cells = histograms.counts.to_numpy(), histograms.n_cells.to_numpy()
    is_control = labels == histograms.control
    control_histogram = base_histograms(counts, n_cells, group_context, is_control)

    perturbed = np.flatnonzero(~is_control)
    counts, n_cells, group_context = counts[perturbed], n_cells[perturbed], group_context[perturbed]
    group_perturbation = np.searchsorted(perturbations, labels[perturbed])
    n_factors = min(n_factors or min(max(len(perturbations) // 4, 2), 20), len(perturbations) - 1)
    factors = factorise(counts, n_cells, group_perturbation, group_context, control_histogram, n_factors)
    kernel, eigenvalues, eigenvectors, share = choose_kernel(embeddings, perturbations, factors.response)

    tilts, targets = on_target_tilts(control_histogram), target_indices(perturbations, histograms.genes)
    learned = learn_tilts(
        counts, n_cells, group_perturbation, group_context, control_histogram, factors.common, tilts, targets
    )
    design = Design(
        log_control=np.log(control_histogram).astype(np.float32),
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=tilts.astype(np.float32),
        targets=targets,
    )
    # A context without perturbed cells has no shift of its own.
    informed = np.isin(np.arange(len(contexts)), group_context)
    common = factors.common[informed].mean(axis=0)
    start = {
        "common": common,
        "loading": factors.loading,
        "explained_share": share,
        "response": factors.response.T,
        "response_scale": np.full_like(factors.response.T, 0.1),
        "tilt_mean": learned.mean,
        "tilt_scale": learned.scale,
        "on_target": learned.on_target,
        "on_target_scale": learned.on_target_scale,
        "log_concentration": np.full(len(histograms.genes), priors.log_concentration[0]),
        "stride": bin_strides(counts),
    }
    if len(contexts) > 1:
        start["context_shift"] = np.where(informed[:, None, None], factors.common - common, 0)
    groups = Batch(counts.astype(np.float32), n_cells.astype(np.int32), group_perturbation, group_context)
    return design, groups, start, kernel


def _label_parameters(parameters: Mapping[str, NDArray], histograms: Histograms, design: Design) -> xr.Dataset:
    """Name the guide's parameters and their dimensions."""
    import xarray as xr

    common = parameters["common_value"] + parameters.get("context_shift_value", np.zeros((1, 1, 1), np.float32))
    return xr.Dataset(
        {
            "common": (("context", "gene", "bin"), common),
            "loading": (("factor", "gene", "bin"), parameters["loading_value"]),
            "explained_share": ("factor", parameters["explained_share_value"]),
            "response": (("perturbation", "factor"), parameters["response_mean"].T),
            "response_scale": (("perturbation", "factor"), parameters["response_scale"].T),
            "tilt_mean": ("tilt", parameters["tilt_mean_value"]),
            "tilt_scale": ("tilt", parameters["tilt_scale_value"]),
            "on_target": (("perturbation", "tilt"), parameters["on_target_mean"]),
            "on_target_scale": (("perturbation", "tilt"), parameters["on_target_scale"]),
            "log_concentration": ("gene", parameters["log_concentration_value"]),
            "eigenvalues": ("eigen", design.eigenvalues),
            "eigenvectors": (("perturbation", "eigen"), design.eigenvectors),
        },
        coords={
            "gene": list(histograms.genes),
            "perturbation": list(histograms.perturbations),
            "context": list(histograms.contexts),
        },
    )
