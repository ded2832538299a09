"""Work in blocks: one perturbation in one context, for a slice of the genes.

Each block has its own random numbers. A result therefore depends neither on what else is predicted nor on the number of
threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar
from zlib import crc32

import numpy as np

BLOCK_GENES = 512

Result = TypeVar("Result")


@dataclass(frozen=True)
class Block:
    """One perturbation in one context, for a slice of the genes.

    Predictions are computed block by block. The argument ``n_cells`` that goes with a block is the whole array
    (perturbation, context) of the prediction: its entry for the block is
    ``n_cells[block.perturbation, block.context]``.

    Attributes
    ----------
    perturbation : int
        Position among the predicted perturbations, not among those of the training.
    context : int
        Position among the predicted contexts, not among those of the training.
    genes : slice
        Slice of the genes, to index arrays: ``values[..., block.genes, :]``.

    See Also
    --------
    distpert.HistogramPrediction, distpert.BasePrediction.generator

    Examples
    --------
    >>> block = Block(perturbation=0, context=1, genes=slice(0, 512))
    >>> np.arange(24).reshape(2, 2, 6)[block.perturbation, block.context, block.genes]
    array([ 6,  7,  8,  9, 10, 11])
    """

    perturbation: int
    context: int
    genes: slice

    def generator(self, seed: int, label: str, context: str, *purpose: int) -> np.random.Generator:
        """Return a random generator; see `distpert.BasePrediction.generator`.

        It depends on the labels of this block, not on its position, and on the first gene of the slice.

        Parameters
        ----------
        seed : int
            Seed of the prediction.
        label, context : str
            Names of the perturbation and the context.
        *purpose : int
            Numbers that distinguish streams of the same block.

        Returns
        -------
        numpy.random.Generator
        """
        entropy = [seed, crc32(label.encode()), crc32(context.encode()), self.genes.start, *purpose]
        return np.random.default_rng(entropy)


def blocks(n_perturbations: int, n_contexts: int, n_genes: int) -> list[Block]:
    """Return all blocks; those with the same genes, and in the same context, one after the other."""
    starts = range(0, n_genes, BLOCK_GENES)
    return [
        Block(p, c, slice(start, min(start + BLOCK_GENES, n_genes)))
        for start in starts
        for c in range(n_contexts)
        for p in range(n_perturbations)
    ]


def map_blocks(
    function: Callable[[Block], Result], todo: Sequence[Block], *, progress_bar: bool = False
) -> Iterator[tuple[Block, Result]]:
    """Apply a function to each block on all cores, with a limited number of results in memory."""
    from tqdm.auto import tqdm

    workers = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    rest = iter(todo)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(todo), desc="predicting", unit="block", disable=not progress_bar, delay=2) as bar,
    ):
        running = [(block, pool.submit(function, block)) for block in islice(rest, 2 * (workers or 1))]
        while running:
            block, future = running.pop(0)
            result = future.result()
            running += [(following, pool.submit(function, following)) for following in islice(rest, 1)]
            bar.update()
            yield block, result
