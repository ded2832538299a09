"""Which perturbations do most, or most of what is wanted: a ranked list with probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import quantile_levels
from distpert._shared.labels import listed
from distpert.model.design import target_indices
from distpert.predictions.blocks import Block
from distpert.predictions.draws import softmax
from distpert.predictions.linear_shifts import LinearShifts

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from distpert.posterior.posterior import Posterior
    from distpert.predictions.prediction import Prediction

BLOCK_LABELS = 1000  # whose responses are drawn at a time; bounds memory
DIRECTIONS = {"up": 1.0, "down": -1.0}

Target: TypeAlias = Union[
    str, Mapping[str, float], Mapping[str, Sequence[str]], Sequence[str], "pd.Series", "AnnData", None
]


@dataclass(frozen=True, eq=False, repr=False)
class Ranking:
    """Perturbations in order, `distpert.Fit.rank`.

    Attributes
    ----------
    table : DataFrame
        A row for each perturbation, the first one first. See `distpert.Fit.rank` for the columns.
    by : str
        ``"effect"`` or ``"similarity"``: what the order is by.
    target : str
        What similarity is to; empty without a target.
    top : int
        Number of perturbations that ``prob_top`` is about.
    ci_prob : float
        Probability of the intervals.
    agreement : float
        Rank correlation of the fast values with those of exact draws, over the rows that have both; NaN below three.

    See Also
    --------
    distpert.Fit.rank, distpert.plots.plot_ranking

    Examples
    --------
    >>> ranking = fit.rank(top=20)  # doctest: +SKIP
    >>> ranking.to_dataframe().head(20)  # doctest: +SKIP
    """

    table: pd.DataFrame
    by: str
    target: str = ""
    top: int = field(kw_only=True)
    ci_prob: float = field(kw_only=True)
    agreement: float = field(kw_only=True)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a copy of the table, indexed by perturbation.

        Examples
        --------
        >>> fit.rank().to_dataframe().to_csv("ranking.csv")  # doctest: +SKIP
        """
        return self.table.copy()

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        n_exact = int(self.table[f"{self.by}_exact"].notna().sum())
        head = f"Ranking of {len(self.table):,} perturbations by {self.by}" + (f" to {self.target}" * bool(self.target))
        told = f"{self.ci_prob:.0%} intervals; prob_top is the probability to be among the first {self.top:,}"
        if n_exact:
            told += f"; {n_exact} rows with exact draws"
            if np.isfinite(self.agreement):
                told += f", rank correlation with the fast values {self.agreement:.2f}"
        rest = f"\n... and {len(self.table) - 10:,} more" if len(self.table) > 10 else ""
        return f"{head}\n{told}\n{self.table.head(10).round(3).to_string()}{rest}"

    def _repr_html_(self) -> str:
        text = repr(self).split("\n", 2)
        return f"<p>{text[0]}<br>{text[1]}</p>{self.table.head(10).round(3).to_html()}"


def wanted_shifts(target: Any, shifts: LinearShifts, posterior: Posterior) -> NDArray[np.float64]:
    """Return wanted shifts (context, gene) in units of control spread, NaN for genes that do not count.

    Raises
    ------
    KeyError
        If none of the genes is measured.
    TypeError
        If the target is none of the accepted forms.
    ValueError
        If a gene is named more than once, or wanted shifts are not finite, or all are 0.
    """
    import pandas as pd
    from anndata import AnnData

    unit = np.where(shifts.unit > 0, shifts.unit, np.nan)  # constant genes do not count
    if isinstance(target, AnnData):
        layer = posterior.histograms.keys.layer
        means = np.asarray((target.X if layer is None else target.layers[layer]).mean(axis=0)).ravel()
        given = pd.Series(means, index=_symbols(target, posterior))
        return (_aligned(given, posterior) - shifts.mean) * unit
    if isinstance(target, Mapping) and target and set(target) <= set(DIRECTIONS):
        genes = [gene for way in target for gene in target[way]]
        signs = [DIRECTIONS[way] for way in target for _ in target[way]]
        return _aligned(pd.Series(signs, genes, dtype=float), posterior) + 0 * unit
    if isinstance(target, list | tuple | set | frozenset):
        return _aligned(pd.Series(1.0, list(target)), posterior) + 0 * unit
    if isinstance(target, Mapping | pd.Series):
        return _aligned(pd.Series(target, dtype=float), posterior) * unit
    raise TypeError(
        "target must be a label, a list of genes to raise, {'up': genes, 'down': genes}, a Series or dict of wanted "
        f"shifts by gene, or an AnnData of cells, not {type(target).__name__}"
    )


def _symbols(cells: AnnData, posterior: Posterior) -> Any:
    key = posterior.histograms.keys.gene_symbols
    return cells.var[key] if key is not None and key in cells.var else cells.var_names


def _aligned(wanted: pd.Series, posterior: Posterior) -> NDArray[np.float64]:
    """Return wanted shifts in the order of the measured genes (gene,), NaN where none is wanted."""
    import warnings

    genes = posterior.genes
    if wanted.index.has_duplicates:
        twice = listed(sorted(set(map(str, wanted.index[wanted.index.duplicated()]))))
        raise ValueError(f"the target names these genes more than once: {twice}. Give each gene one wanted shift")
    if not np.isfinite(wanted.to_numpy()).all():
        raise ValueError(f"wanted shifts must be finite numbers: {listed(wanted.index[~np.isfinite(wanted)])}")
    missing = [gene for gene in wanted.index if gene not in set(genes)]
    if len(missing) == len(wanted):
        raise KeyError(
            f"none of the genes of the target is measured: {listed(map(str, missing))}. Use the symbols of the fit"
        )
    if missing:
        warnings.warn(
            f"{len(missing):,} of {len(wanted):,} genes of the target are not measured and do not count: "
            f"{listed(map(str, missing))}",
            UserWarning,
            stacklevel=6,
        )
    found = wanted.reindex(genes).to_numpy(dtype=float)
    if not np.nan_to_num(found).any():
        raise ValueError("all wanted shifts are 0, to which nothing is similar. Give at least one gene a shift")
    return found


def expand(posterior: Posterior, contexts: Sequence[int]) -> LinearShifts:
    """Expand the shifts about the mean response of the training perturbations."""
    parameters = posterior.parameters
    take = list(contexts)
    return LinearShifts.of(
        parameters["control"].to_numpy()[take],
        parameters["common"].to_numpy()[take],
        parameters["loading"].to_numpy(),
        parameters["loading_scale"].to_numpy(),
        parameters["basis"].to_numpy(),
        posterior.centers,
        posterior.small_parameters["response"].mean(axis=0),
    )


def fast_values(
    posterior: Posterior,
    labels: Sequence[str],
    shifts: LinearShifts,
    target: NDArray | None,
    num_draws: int,
    seed: int,
    progress_bar: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Draw sizes, and similarities if there is a target, of many perturbations (draw, label)."""
    from tqdm.auto import tqdm

    effect = np.empty((num_draws, len(labels)), np.float32)
    similarity = None if target is None else np.empty_like(effect)
    own = target_indices(labels, posterior.genes)
    with tqdm(total=len(labels), desc="ranking", unit="label", delay=2, disable=not progress_bar) as bar:
        for part in _parts(len(labels)):
            drawn = posterior.draw_responses(labels[part], num_draws, seed)
            response = drawn.response.astype(np.float64)
            effect[:, part] = np.where(drawn.inactive, 0, shifts.sizes(response, own[part]))
            if similarity is not None and target is not None:
                similarity[:, part] = np.where(drawn.inactive, 0, shifts.similarities(response, target))
            bar.update(part.stop - part.start)
    return effect, similarity


def _parts(n_labels: int) -> Iterator[slice]:
    return (slice(at, min(at + BLOCK_LABELS, n_labels)) for at in range(0, n_labels, BLOCK_LABELS))


def exact_shifts(prediction: Prediction, block: Block) -> NDArray[np.float64]:
    """Draw shifts of the mean (draw, gene), in units of the standard deviation of the controls; 0 if that is 0."""
    centers = prediction.centers[block.genes]
    base = softmax(prediction.shared(block).control.copy()).astype(np.float64)
    mean = (base * centers).sum(axis=-1)
    spread = np.sqrt((base * (centers - mean[..., None]) ** 2).sum(axis=-1).mean(axis=0))
    shift = (prediction.probs(block).astype(np.float64) * centers).sum(axis=-1) - mean
    return np.divide(shift, spread, out=np.zeros_like(shift), where=spread > 0)


def exact_values(prediction: Prediction, target: NDArray | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw sizes and similarities (draw, label) from the draws of all histograms; NaN similarities without a target."""
    posterior = prediction.posterior
    n_draws, n_labels = prediction.num_draws, len(prediction.perturbations)
    own = target_indices(prediction.perturbations, posterior.genes)

    def of_block(block: Block) -> NDArray[np.float64]:
        """Sum (4, draw): squares; squares and products with the target, where it counts; and the genes that count."""
        shift = exact_shifts(prediction, block)
        counted = np.ones(shift.shape[1])
        counted[
            [g - block.genes.start for g in own[block.perturbation] if block.genes.start <= g < block.genes.stop]
        ] = 0
        wanted = np.zeros(shift.shape[1]) if target is None else target[block.context, block.genes]
        of_target = np.isfinite(wanted)
        squares = shift[:, of_target] ** 2
        return np.stack(
            [
                (shift**2) @ counted,
                squares.sum(axis=1),
                shift[:, of_target] @ wanted[of_target],
                np.full(n_draws, counted.sum()),
            ]
        )

    sums = np.zeros((4, n_draws, n_labels))
    for block, found in prediction.map_blocks(of_block):
        sums[:, :, block.perturbation] += found
    effect = np.sqrt(sums[0] / np.maximum(sums[3], 1))
    if target is None:
        return effect, np.full_like(effect, np.nan)
    size = np.sqrt(sums[1] * np.nansum(target**2))
    return effect, np.divide(sums[2], size, out=np.zeros_like(size), where=size > 0)


def tabulate(
    labels: Sequence[str],
    effect: NDArray,
    similarity: NDArray | None,
    seen: NDArray[np.bool_],
    told: NDArray,
    top: int,
    ci_prob: float,
) -> pd.DataFrame:
    """Make the table of a ranking, in its order, without the exact columns."""
    import pandas as pd

    levels = quantile_levels(ci_prob)
    columns: dict[str, Any] = {}
    for name, draws in (("similarity", similarity), ("effect", effect)):
        if draws is None:
            continue
        median, lower, upper = np.quantile(draws, levels, axis=0)
        columns |= {name: median, f"{name}_lower": lower, f"{name}_upper": upper}
    by = effect if similarity is None else similarity
    # Draw by draw, the place of each perturbation among all.
    threshold = -np.partition(-by, top - 1, axis=1)[:, [top - 1]] if top < by.shape[1] else np.full((1, 1), -np.inf)
    columns |= {"prob_top": (by >= threshold).mean(axis=0), "told": told, "seen": seen}
    table = pd.DataFrame(columns, index=pd.Index(labels, name="perturbation"))
    first = "effect" if similarity is None else "similarity"
    return table.sort_values([first, "prob_top"], ascending=False, kind="stable")


def rank_labels(
    posterior: Posterior,
    predict: Callable[..., Prediction],
    labels: Sequence[str],
    contexts: Sequence[str],
    target: Any,
    *,
    top: int,
    n_exact: int,
    num_draws: int,
    seed: int,
    ci_prob: float,
    progress_bar: bool,
) -> Ranking:
    """Rank perturbations; see `distpert.Fit.rank`. ``predict`` is that of the fit."""
    places = [posterior.contexts.index(context) for context in contexts]
    options: dict[str, Any] = {"num_draws": num_draws, "seed": seed, "progress_bar": progress_bar}
    if posterior.histograms.context_key:
        options["context"] = list(contexts)
    shifts = expand(posterior, places)
    wanted: NDArray[np.float64] | None = None
    if isinstance(target, str):
        alone = predict(target, **options)
        wanted = np.zeros((len(places), len(posterior.genes)))
        for block, shift in alone.map_blocks(lambda block: exact_shifts(alone, block).mean(axis=0)):
            wanted[block.context, block.genes] = shift
    elif target is not None:
        wanted = wanted_shifts(target, shifts, posterior)
    is_fast = posterior.samples is None
    effect: NDArray[np.floating]
    similarity: NDArray[np.floating] | None
    if is_fast:
        effect, similarity = fast_values(posterior, labels, shifts, wanted, num_draws, seed, progress_bar)
    else:  # loadings differ between draws of chains, so all values are exact
        exact = exact_values(predict(list(labels), **options), wanted)
        effect, similarity = exact[0], None if wanted is None else exact[1]
    seen = np.isin(np.array(labels), np.array(posterior.perturbations))
    told = np.concatenate([posterior.told(labels[part]) for part in _parts(len(labels))])
    top = min(top, len(labels))
    table = tabulate(labels, effect, similarity, seen, told, top, ci_prob)
    by = "effect" if wanted is None else "similarity"
    chosen = list(table.index[: n_exact if is_fast else len(table)])
    table[f"{by}_exact"] = np.nan
    agreement = float("nan")
    if chosen and is_fast:
        exact = exact_values(predict(chosen, **options), wanted)
        table.loc[chosen, f"{by}_exact"] = np.median(exact[by == "similarity"], axis=0)
    elif chosen:
        table[f"{by}_exact"] = table[by]
    if len(chosen) > 2:
        both = table.loc[chosen, [by, f"{by}_exact"]]
        agreement = float(both.corr("spearman").iloc[0, 1])
    return Ranking(table, by, _name(target), top=top, ci_prob=ci_prob, agreement=agreement)


def _name(target: Any) -> str:
    if target is None:
        return ""
    if isinstance(target, str):
        return target
    shape = getattr(target, "n_obs", None)
    return f"{shape:,} cells" if shape is not None else "the wanted shifts"
