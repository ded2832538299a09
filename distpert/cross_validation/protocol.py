"""Cross-validation over perturbations: scores of models on perturbations that they were not fitted to."""

from __future__ import annotations

import time
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from distpert._shared.arguments import check_count
from distpert._shared.labels import listed, spelling_hint
from distpert.cross_validation.files import describe_data, open_folder, read_scores, write_scores
from distpert.cross_validation.models import Distpert, name_models
from distpert.cross_validation.splits import Fold, Splits, split_perturbations
from distpert.embeddings.sources import as_embeddings
from distpert.embeddings.vectors import Embeddings
from distpert.evaluation.scoring import score
from distpert.histograms.binning import bin_edges, gene_ranges
from distpert.histograms.cell_groups import group_cells
from distpert.histograms.counting import count_screen
from distpert.histograms.histograms import Histograms
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.opening import annotated
from distpert.histograms.screen import Screen, read_screen
from distpert.training.checks import FEWEST_PERTURBATIONS

if TYPE_CHECKING:
    import os

    import xarray as xr

    from distpert.baselines import Baseline
    from distpert.cross_validation.models import Model
    from distpert.embeddings.sources import EmbeddingSources
    from distpert.histograms.opening import ScreenSource

__all__ = ["Distpert", "cross_validate"]


def cross_validate(
    adata: ScreenSource,
    embeddings: EmbeddingSources,
    *,
    models: Model | Sequence[Model] = ("distpert", "control", "pooled"),
    n_folds: int = 9,
    seed: int = 0,
    folds: int | Iterable[int] | None = None,
    path: str | os.PathLike[str] | None = None,
    perturbation_key: str = "perturbation",
    control: str = "control",
    context_key: str | None = None,
    layer: str | None = None,
    gene_symbols: str | None = None,
    n_bins: int = 15,
    num_draws: int = 200,
    progress_bar: bool = True,
) -> xr.Dataset:
    """Score models on perturbations that they were not fitted to.

    The folds are those of `split_perturbations`. In each fold, bins and models come from the training cells only. The
    held-out perturbations are predicted in all contexts and scored against their cells (see `distpert.score`).

    Parameters
    ----------
    adata : AnnData, path, or list of these
        As in `distpert.count_histograms`: cells × genes, log1p of counts per 10,000, one perturbation label for each
        cell. They are not copied, and may be on disk: then they are read again for each fold.
    embeddings : DataFrame, dict, str, Embeddings, or list of these
        As in `distpert.fit`.
    models : str, Baseline, Distpert, or list of these or of pairs
        Models to compare: ``"distpert"``, names of `distpert.baselines.BASELINES`, or objects with the protocol
        `distpert.baselines.Baseline`. A list may also have pairs of a name and such an object, for instance
        ``["distpert", ("few_factors", Distpert(n_factors=4))]``.
    n_folds : int
        Number of folds. With as many folds as perturbed genes, each fold holds out one gene.
    seed : int
        Seed of folds, fits, predictions and scores.
    folds : int or iterable of int, optional
        Folds to run, by number from 0; by default all.
    path : str or path, optional
        Folder to keep results in. Results that are there already are read, not computed again: an interrupted run
        continues where it stopped, and models can be added later. Several processes may share the folder, each with
        other ``folds``.
    perturbation_key, control : str
        As in `distpert.fit`.
    context_key, layer, gene_symbols : str, optional
        As in `distpert.fit`.
    n_bins : int
        As in `distpert.fit`.
    num_draws : int
        Number of posterior draws of the model named ``"distpert"``.
    progress_bar : bool
        Whether to show progress over folds and models.

    Returns
    -------
    Dataset
        Scores (model, fold, perturbation[, context]). Ceilings, ``n_cells`` and others that depend only on the cells
        have no model: (fold, perturbation[, context]). Values are NaN where the fold does not hold out the
        perturbation. ``seconds`` (model, fold) is the time of fitting, without the counting that all models share.
        Coordinate ``category`` (fold, perturbation) is ``unseen_single``, or ``combo_seen0`` to ``combo_seen2`` by how
        many genes of a pair occur in training; it is empty where the perturbation is not held out. Attributes
        ``n_folds``, ``seed``, ``version``.

    Raises
    ------
    TypeError
        If ``adata`` is something else, or a model has no ``fit``.
    ValueError
        If the data cannot be used (see `distpert.fit`), folds cannot be made (see `split_perturbations`) or leave
        fewer than 3 perturbations to train on, a name or fold is unknown or named twice, or ``path`` has results of
        other data or settings. All this is checked before any long work.
    KeyError
        If a column, layer or key is unknown.

    Warns
    -----
    UserWarning
        If perturbations are never held out, because they have fewer than 2 cells or no embedding. The warning names
        them. They stay in the training of each fold in which they share no gene with held-out perturbations.

    See Also
    --------
    distpert.compare, distpert.split_perturbations, distpert.score

    Examples
    --------
    >>> adata = distpert.datasets.renge()  # doctest: +SKIP
    >>> scores = distpert.cross_validate(adata, "embeddings", models=["distpert", "pooled"])  # doctest: +SKIP
    >>> scores["cramer"].mean(["fold", "perturbation"]).to_series()  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    if isinstance(adata, Histograms):
        raise TypeError("cross_validate needs an AnnData of cells: the bins of histograms have seen the held-out cells")
    n_bins = check_count("n_bins", n_bins, 2)
    named = name_models(models, num_draws, keep=path is not None)
    keys = ScreenKeys(
        perturbation_key=perturbation_key,
        control=control,
        context_key=context_key,
        layer=layer,
        gene_symbols=gene_symbols,
    )
    screen = read_screen(adata, keys)
    embeddings = as_embeddings(embeddings, annotated(adata), genes=[*set(screen.perturbation.tolist()), *screen.genes])
    usable, others = _usable(screen, embeddings)
    splits = split_perturbations(usable, n_folds, control=screen.control, seed=seed, training_only=others)
    chosen = _choose_folds(folds, splits, usable)
    attrs = {"n_folds": len(splits.folds), "seed": splits.seed, "version": version("distpert")}
    folder = None
    if path is not None:
        settings = {**attrs, "n_bins": n_bins, **keys.to_dict(), **describe_data(screen, embeddings)}
        folder = open_folder(path, settings, splits)

    scores = {}
    with tqdm(total=len(chosen) * len(named), desc="cross-validation", unit="fit", disable=not progress_bar) as bar:
        for i in chosen:
            counted = None
            for name, model in named.items():
                bar.set_postfix_str(f"fold {i}, {name}")
                part = read_scores(folder, i, name, repr(model)) if folder else None
                if part is None:
                    counted = counted or count_fold(screen, splits.folds[i], n_bins)
                    try:
                        part = _evaluate(model, *counted, sorted(splits.folds[i].held_out), embeddings, seed)
                    except Exception as error:
                        error.add_note(f"This was model {name!r} in fold {i} of the cross-validation.")
                        raise
                    if folder:
                        write_scores(part, folder, i, name, repr(model))
                scores[name, i] = part
                bar.update()
    return _assemble(scores, list(named), chosen, splits).assign_attrs(attrs)


def _usable(screen: Screen, embeddings: Embeddings) -> tuple[list[str], list[str]]:
    """Perturbations that can be held out, and those that cannot; warns of the latter."""
    groups = group_cells(screen)
    labels = sorted(set(groups.perturbation.tolist()) - {screen.control})
    single, missing = set(groups.with_one_cell()), embeddings.missing(labels)
    usable = [label for label in labels if label not in single and label not in missing]
    hint = spelling_hint(chain.from_iterable(missing.values()), embeddings.genes)
    if len(usable) <= FEWEST_PERTURBATIONS:
        raise ValueError(
            f"{len(usable)} of {len(labels)} perturbations have 2 cells and an embedding; at least "
            f"{FEWEST_PERTURBATIONS + 1} are needed. Without an embedding: {listed(missing)}. The embeddings are "
            f"of {listed(embeddings.genes, 5)}: do they use the same symbols?{hint}"
        )
    kept = "kept in training, but never held out"
    if missing:
        end = hint and "." + hint
        warnings.warn(f"no embedding for {listed(missing)}: {kept}{end}", UserWarning, stacklevel=3)
    if few := sorted(single & set(labels)):
        warnings.warn(f"fewer than 2 cells of {listed(few)}: {kept}", UserWarning, stacklevel=3)
    return usable, [label for label in labels if label not in usable]


def _choose_folds(folds: int | Iterable[int] | None, splits: Splits, usable: Sequence[str]) -> list[int]:
    there = range(len(splits.folds))
    given = there if folds is None else folds if isinstance(folds, Iterable) else [folds]
    chosen = [check_count("folds", fold, 0) for fold in given]
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(there):
        raise ValueError(f"folds are numbered from 0 to {len(splits.folds) - 1}, each at most once; got {folds!r}")
    for i in chosen:
        training = [label for label in usable if splits.folds[i].trains_on(label)]
        if len(training) < FEWEST_PERTURBATIONS:
            raise ValueError(
                f"fold {i} leaves {len(training)} perturbations with an embedding to train on ({listed(training)}); "
                f"at least {FEWEST_PERTURBATIONS} are needed. Raise n_folds"
            )
    return chosen


def count_fold(screen: Screen, fold: Fold, n_bins: int) -> tuple[Histograms, Histograms]:
    """Count training and held-out cells in one pass, in bins that span only the training cells.

    Parameters
    ----------
    screen
        The screen, as read.
    fold
        The fold that holds perturbations out.
    n_bins
        Bins for each gene.

    Returns
    -------
    training, held_out : Histograms
        Both with the control cells of all contexts.
    """
    import xarray as xr

    labels, of_cell = np.unique(screen.perturbation, return_inverse=True)
    trains = np.array([label == screen.control or (label != "" and fold.trains_on(label)) for label in labels])
    edges = bin_edges(*gene_ranges(screen.matrix, trains[of_cell]), n_bins)
    bins = xr.Dataset(
        coords={
            "gene": np.array(screen.genes),
            "bin_left": (("gene", "bin"), edges[:, :-1]),
            "bin_right": (("gene", "bin"), edges[:, 1:]),
        }
    )
    with _already_warned("perturbations with fewer than 2 cells"):
        counted = count_screen(screen, bins=bins)
    return counted.select(filter(fold.trains_on, counted.perturbations)), counted.select(fold.held_out)


def _evaluate(
    model: Baseline | Distpert,
    training: Histograms,
    held_out: Histograms,
    labels: Sequence[str],
    embeddings: Embeddings,
    seed: int,
) -> xr.Dataset:
    started = time.perf_counter()
    with _already_warned("no embedding for"):
        fitted = model.fit(training, embeddings, seed=seed)
    seconds = time.perf_counter() - started
    found = score(fitted.predict(labels, seed=seed), held_out, seed=seed)
    return found.assign(seconds=((), seconds, {"long_name": "time to fit", "units": "s"}))


def _assemble(
    scores: Mapping[tuple[str, int], xr.Dataset], models: Sequence[str], folds: Sequence[int], splits: Splits
) -> xr.Dataset:
    """Lay out the scores of each model and fold side by side."""
    import xarray as xr

    labels = sorted({label for i in folds for label in splits.folds[i].held_out})
    options: dict[str, Any] = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}

    def over_folds(parts: Sequence[xr.Dataset]) -> xr.Dataset:
        aligned = [part.reindex(perturbation=labels) for part in parts]
        return xr.concat(aligned, "fold", **options)

    by_model = [over_folds([scores[name, i] for i in folds]) for name in models]
    of_cells = [part[[name for name in part if _is_of_cells(name)]] for part in by_model]
    by_model = [part.drop_vars(cells) for part, cells in zip(by_model, of_cells, strict=True)]
    table = xr.concat(by_model, "model", **options).assign_coords(model=list(models), fold=list(folds))
    # From all models, because a method that predicts means only has few of these variables.
    for cells in of_cells:
        table = table.assign({name: array for name, array in cells.items() if name not in table})
    category = [[splits.folds[i].held_out.get(label, "") for label in labels] for i in folds]
    return table.assign_coords(category=(("fold", "perturbation"), np.array(category)))


def _is_of_cells(name: Hashable) -> bool:
    """Whether a variable of `score` depends only on the held-out cells, and is the same for all models."""
    return name in ("n_cells", "out_of_range", "undefined_genes") or str(name).startswith("ceiling_")


@contextmanager
def _already_warned(message: str) -> Iterator[None]:
    """Suppress a warning that was already given once for all folds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
