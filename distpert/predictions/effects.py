"""Shifts of moments from a reference, with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_number, quantile_levels
from distpert._shared.labels import genes_of, listed
from distpert.histograms.moments import EXPRESSION, MOMENTS, histogram_moments
from distpert.histograms.statistics import attributes
from distpert.predictions.blocks import Block
from distpert.predictions.draws import softmax
from distpert.predictions.layout import collect, labeled
from distpert.predictions.posterior_draws import PosteriorDraws
from distpert.predictions.requested import requested_labels

if TYPE_CHECKING:
    import xarray as xr

REFERENCES = ("control", "mean", "additive")
_STATISTICS = ("shift", "lower", "upper", "prob_positive", "lfsr", "prob_rope")
_ABOUT = {
    "prob_positive": "probability that the shift is positive",
    "lfsr": "local false sign rate",
    "s_value": "expected share of wrong signs among genes with at most this lfsr",
    "prob_rope": "probability of the region of practical equivalence",
}
_SMALLEST_MEAN = 1e-30


def find_effects(prediction: PosteriorDraws, reference: str, rope: float, ci_prob: float) -> xr.Dataset:
    """Find the shifts; see `Prediction.effects`."""
    import xarray as xr

    if reference not in REFERENCES:
        raise ValueError(f"reference must be one of {listed(REFERENCES)}, not {reference!r}")
    rope, levels = check_number("rope", rope, least=0), quantile_levels(ci_prob)
    of_reference = _reference(prediction, reference)
    constant = np.isin(prediction.genes, prediction.training.constant_genes)

    def of_block(block: Block) -> NDArray:
        centers = prediction.centers[block.genes]
        expected, unit = of_reference(block), _unit(prediction, block)
        shift = _moments(prediction.draw(block), centers) - expected
        shift[:, :, constant[block.genes]] = 0
        found = _summarize(shift[: len(MOMENTS)], rope * unit, levels)
        fold = np.quantile(shift[-1], levels, axis=0) / np.log(2)
        return np.concatenate([found.reshape(-1, found.shape[-1]), fold]).T

    n_values = len(_STATISTICS) * len(MOMENTS) + len(levels)
    array = labeled(prediction, collect(prediction, of_block, (n_values,)), ("value",))
    of_moments = array.isel(value=slice(0, -len(levels)))
    parts = of_moments.to_numpy().reshape(*of_moments.shape[:-1], len(_STATISTICS), len(MOMENTS))
    dims = ("moment", *array.dims[:-1])
    coords = {**array.drop_vars("value", errors="ignore").coords, "moment": list(MOMENTS)}
    effects = xr.Dataset(
        {name: (dims, np.moveaxis(parts[..., i, :], -1, 0)) for i, name in enumerate(_STATISTICS)}, coords
    )
    lfsr = effects["lfsr"].transpose(..., "gene")
    effects["s_value"] = lfsr.copy(data=mean_of_smaller(lfsr.to_numpy()))
    for i, name in enumerate(("", "_lower", "_upper")):
        fold = array.isel(value=len(_STATISTICS) * len(MOMENTS) + i, drop=True)
        effects[f"log2_fold_change{name}"] = fold.assign_attrs(
            long_name="log2 fold change of mean expression", units="1"
        )
    for name, about in _ABOUT.items():
        effects[name].attrs = {"long_name": about, "units": "1"}
    effects["shift"].attrs = {
        "long_name": f"shift from the {reference} reference",
        "units": ", ".join(f"{name}: {attributes(name)['units']}" for name in MOMENTS),
    }
    return effects.assign_attrs(reference=reference, rope=rope, ci_prob=ci_prob, expression=EXPRESSION)


def mean_of_smaller(values: NDArray) -> NDArray:
    """Mean of all values along the last axis that are at most as large as each."""
    from scipy.stats import rankdata

    ascending = np.sort(values, axis=-1).astype(np.float64)
    means = ascending.cumsum(axis=-1) / np.arange(1, values.shape[-1] + 1)
    n_smaller = rankdata(values, method="max", axis=-1).astype(int)  # equal values included
    return np.take_along_axis(means, n_smaller - 1, axis=-1).astype(values.dtype)


def _summarize(shift: NDArray, width: NDArray, levels: list[float]) -> NDArray:
    """Statistics (statistic, moment, gene) of draws of shifts (moment, draw, gene)."""
    n_draws = shift.shape[1]

    def share(event: NDArray) -> NDArray:
        return (event.sum(axis=1) + 0.5) / (n_draws + 1)

    positive, negative, zero = share(shift > 0), share(shift < 0), (shift == 0).all(axis=1)
    lfsr = np.where(zero, 1, np.minimum(share(shift >= 0), share(shift <= 0)))
    inside = (np.abs(shift) <= width[:, None]).mean(axis=1)
    probability = np.where(zero, 0.5, positive / (positive + negative))
    return np.stack([*np.quantile(shift, levels, axis=1), probability, lfsr, inside])


def _moments(histograms: NDArray, centers: NDArray) -> NDArray[np.float64]:
    """Moments of histograms (draw, gene, bin), and the log of the mean expression before the logarithm."""
    exact = histograms.astype(np.float64)
    raw = (exact * np.expm1(centers)).sum(axis=-1)
    return np.stack([*histogram_moments(exact, centers), np.log(np.maximum(raw, _SMALLEST_MEAN))])


def _unit(prediction: PosteriorDraws, block: Block) -> NDArray[np.float64]:
    """Units (moment, gene) of a region of practical equivalence."""
    posterior = prediction.posterior
    control = posterior.control[posterior.contexts.index(prediction.contexts[block.context]), block.genes]
    variance = histogram_moments(control, prediction.centers[block.genes])[1]
    return np.stack([np.sqrt(variance), variance, np.ones_like(variance), np.ones_like(variance)])


def _reference(prediction: PosteriorDraws, reference: str) -> Callable[[Block], NDArray[np.float64]]:
    """Return a function from blocks to draws of the moments of the reference (value, draw, gene)."""

    def control(block: Block) -> NDArray[np.float64]:
        return _moments(softmax(prediction.shared(block).control.copy()), prediction.centers[block.genes])

    def mean(block: Block) -> NDArray[np.float64]:
        shared, response = prediction.shared(block), prediction.posterior.mean_response(prediction.num_draws)
        loading = shared.loading.reshape(*shared.loading.shape[:2], -1)
        logits = (response[:, None] @ loading).reshape(shared.base.shape) + shared.base
        return _moments(softmax(logits), prediction.centers[block.genes])

    if reference == "control":
        return control
    if reference == "mean":
        return mean
    single = [label for label in prediction.perturbations if len(genes_of(label)) < 2]
    if single:
        raise ValueError(
            f"the additive reference is for combinations A+B, not for {listed(single)}; predict combinations alone"
        )
    genes = sorted({gene for label in prediction.perturbations for gene in genes_of(label)})
    labels = requested_labels(genes, prediction.training, prediction.posterior.embeddings)
    drawn = prediction.posterior.draw_responses(labels, prediction.num_draws, prediction.seed)
    singles = replace(prediction, perturbations=labels, **drawn._asdict())

    def additive(block: Block) -> NDArray[np.float64]:
        base = control(block)
        total = base.copy()
        for gene in genes_of(prediction.perturbations[block.perturbation]):
            of_gene = replace(block, perturbation=labels.index(gene))
            total += _moments(singles.draw(of_gene), prediction.centers[block.genes]) - base
        return total

    return additive
