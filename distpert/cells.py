"""Synthetic cells, drawn from predicted histograms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert.arguments import check_count, check_seed
from distpert.draws import DRAW_OF_CELL, LEVEL, Block

if TYPE_CHECKING:
    from anndata import AnnData

    from distpert.prediction import Prediction


def draw_cells(prediction: Prediction, n_cells: int, seed: int) -> AnnData:
    """Draw cells; see `Prediction.sample_cells`."""
    import anndata
    import pandas as pd

    n_cells, seed = check_count("n_cells", n_cells), check_seed(seed)
    centers = prediction.fit.centers

    def cells(block: Block) -> NDArray:
        # A cell is of one draw whatever the block of its genes.
        of_cells = prediction._generator(replace(block, genes=slice(0, 0)), DRAW_OF_CELL, seed)
        rng = prediction._generator(block, LEVEL, seed)
        cdf = prediction._draw(block).cumsum(axis=-1)
        chosen = cdf[of_cells.integers(prediction.num_draws, size=n_cells)]
        level = rng.random((*chosen.shape[:-1], 1), dtype=np.float32) * chosen[..., -1:]
        drawn = (level > chosen[..., :-1]).sum(axis=-1)  # (cell, gene)
        return np.take_along_axis(centers[block.genes].T, drawn, axis=0).T

    values = prediction._collect(cells, (n_cells,))  # (perturbation, context, gene, cell)
    matrix = np.moveaxis(values, -1, -2).reshape(-1, len(prediction.genes))
    repeats = len(prediction.contexts) * n_cells
    columns = prediction.training.columns
    obs = pd.DataFrame({columns["perturbation_key"]: pd.Categorical(np.repeat(prediction.perturbations, repeats))})
    if (key := columns["context_key"]) is not None:
        obs[key] = pd.Categorical(np.tile(np.repeat(prediction.contexts, n_cells), len(prediction.perturbations)))
    obs.index = [f"synthetic{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=list(prediction.genes))
    if (symbols := columns["gene_symbols"]) is not None:
        var[symbols] = list(prediction.genes)
    layers = {} if columns["layer"] is None else {columns["layer"]: matrix.copy()}
    return anndata.AnnData(matrix, obs=obs, var=var, layers=layers)
