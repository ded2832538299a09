"""Cross-validation over perturbations: models scored on what they were not fitted to."""

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
from distpert.embeddings.vectors import Embeddings, as_embeddings
from distpert.evaluation.scoring import score
from distpert.histograms.binning import bin_edges, gene_ranges
from distpert.histograms.cell_groups import group_cells
from distpert.histograms.counting import count_screen
from distpert.histograms.histograms import Histograms
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import Screen, read_screen
from distpert.training.checks import FEWEST_PERTURBATIONS

if TYPE_CHECKING:
    import os

    import xarray as xr
    from anndata import AnnData

    from distpert.baselines import Baseline
    from distpert.cross_validation.models import Model
    from distpert.embeddings.vectors import EmbeddingSources

__all__ = ["Distpert", "cross_validate"]


def cross_validate(
    adata: AnnData,
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

    For each fold of `split_perturbations`, bins are laid and models are fitted on the training cells alone; the
    perturbations held out are predicted in all contexts and scored against their cells (see `distpert.score`).

    Parameters
    ----------
    adata
        Cells × genes, log1p of counts per 10,000, one perturbation label a cell. It is not copied.
    embeddings
        As in `distpert.fit`.
    models
        Which to compare: ``"distpert"``, names of `distpert.baselines.BASELINES`, objects with the protocol
        `distpert.baselines.Baseline`, or in a list of models also pairs of a name and such an object, for instance
        ``["distpert", ("few_factors", Distpert(n_factors=4))]``.
    n_folds
        Number of folds; as many as there are perturbed genes leave one gene out at a time.
    seed
        Of folds, fits, predictions and scores.
    folds
        Which folds to run, by number; by default all.
    path
        Folder to keep results in: what is there already is read and not run again, so that an interrupted run goes on
        where it stopped, and models can be added later. Several processes may share it, each with other `folds`.
    perturbation_key, control, context_key, layer, gene_symbols, n_bins
        As in `distpert.fit`.
    num_draws
        Posterior draws of the model named ``"distpert"``.
    progress_bar
        Whether to show progress, over folds and models.

    Returns
    -------
    Dataset
        Each score (model, fold, perturbation[, context]), and what depends on the cells alone, such as ceilings and
        ``n_cells`` (fold, perturbation[, context]): NaN where the fold does not hold the perturbation out.
        ``seconds`` (model, fold) of fitting, without the counting that all share. Coordinate ``category``
        (fold, perturbation): ``unseen_single``, or ``combo_seen0`` to ``combo_seen2`` by how many genes of a pair occur
        in training, and empty where the perturbation is not held out. Attributes ``n_folds``, ``seed``, ``version``.

    Raises
    ------
    TypeError
        If `adata` is no AnnData, or a model has no ``fit``.
    ValueError
        If the data cannot be used (see `distpert.fit`), folds cannot be made (see `split_perturbations`) or leave
        fewer than 3 perturbations to train on, a name or fold is unknown or named twice, or `path` holds results of
        other data or settings. All this is found before any long work.
    KeyError
        If a column, layer or key is unknown.

    Warns
    -----
    UserWarning
        Names perturbations that are never held out: those with fewer than 2 cells, or without an embedding. They stay
        in training, where they share no gene with those held out.
    """
    from tqdm.auto import tqdm

    if isinstance(adata, Histograms):
        raise TypeError(
            "cross_validate needs the cells, an AnnData: histograms have bins from all cells, those held out too"
        )
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
    embeddings = as_embeddings(embeddings, adata, genes=[*set(screen.perturbation.tolist()), *screen.genes])
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
    """Perturbations that can be held out, and those that cannot, with a warning that names them."""
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
                f"at least {FEWEST_PERTURBATIONS} are needed. More folds leave more"
            )
    return chosen


def count_fold(screen: Screen, fold: Fold, n_bins: int) -> tuple[Histograms, Histograms]:
    """Count training and held-out cells in one pass, in bins that span the training cells alone.

    Parameters
    ----------
    screen
        As read.
    fold
        What is held out.
    n_bins
        Bins of each gene.

    Returns
    -------
    training, held_out : Histograms
        With the control groups of all contexts in both.
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
    with _said_before("perturbations with fewer than 2 cells"):
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
    with _said_before("no embedding for"):
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
    # One after the other: a method that predicts means alone has but a few of them.
    for cells in of_cells:
        table = table.assign({name: array for name, array in cells.items() if name not in table})
    category = [[splits.folds[i].held_out.get(label, "") for label in labels] for i in folds]
    return table.assign_coords(category=(("fold", "perturbation"), np.array(category)))


def _is_of_cells(name: Hashable) -> bool:
    """Whether a variable of `score` depends on the held-out cells alone, and so is the same for all models."""
    return name in ("n_cells", "out_of_range", "undefined_genes") or str(name).startswith("ceiling_")


@contextmanager
def _said_before(message: str) -> Iterator[None]:
    """Keep quiet what was said once for all folds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
