"""Synthetic cells, drawn from predicted histograms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed
from distpert.predictions.blocks import Block
from distpert.predictions.draws import DRAW_OF_CELL, LEVEL
from distpert.predictions.layout import collect
from distpert.predictions.posterior_draws import PosteriorDraws

if TYPE_CHECKING:
    from anndata import AnnData


def draw_cells(prediction: PosteriorDraws, n_cells: int, seed: int) -> AnnData:
    """Draw cells; see `Prediction.sample_cells`."""
    import anndata
    import pandas as pd

    n_cells, seed = check_count("n_cells", n_cells), check_seed(seed)
    centers = prediction.posterior.centers

    def cells(block: Block) -> NDArray:
        # All genes of a cell come from the same draw: this generator does not depend on the genes of the block.
        of_cells = prediction.generator(replace(block, genes=slice(0, 0)), DRAW_OF_CELL, seed)
        rng = prediction.generator(block, LEVEL, seed)
        cdf = prediction.draw(block).cumsum(axis=-1)
        chosen = cdf[of_cells.integers(prediction.num_draws, size=n_cells)]
        level = rng.random((*chosen.shape[:-1], 1), dtype=np.float32) * chosen[..., -1:]
        drawn = (level > chosen[..., :-1]).sum(axis=-1)  # (cell, gene)
        return np.take_along_axis(centers[block.genes].T, drawn, axis=0).T

    values = collect(prediction, cells, (n_cells,))  # (perturbation, context, gene, cell)
    matrix = np.moveaxis(values, -1, -2).reshape(-1, len(prediction.genes))
    repeats = len(prediction.contexts) * n_cells
    keys = prediction.training.keys
    obs = pd.DataFrame({keys.perturbation_key: pd.Categorical(np.repeat(prediction.perturbations, repeats))})
    if (key := keys.context_key) is not None:
        obs[key] = pd.Categorical(np.tile(np.repeat(prediction.contexts, n_cells), len(prediction.perturbations)))
    obs.index = [f"synthetic{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=list(prediction.genes))
    if (symbols := keys.gene_symbols) is not None:
        var[symbols] = list(prediction.genes)
    layers = {} if keys.layer is None else {keys.layer: matrix.copy()}
    return anndata.AnnData(matrix, obs=obs, var=var, layers=layers)
