"""Draws of histograms, a block at a time.

All in numpy: its gamma sampler is a hundred times faster than JAX's on a CPU, and draws are then the same on every
device. A block is one perturbation in one context and at most `BLOCK_GENES` genes, and has random numbers of its own,
so that a result does not depend on what else is asked for, nor on how many threads work.
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
from jaxtyping import Float32, Int
from numpy.typing import NDArray

BLOCK_GENES = 512
HISTOGRAM, REPLICATE, LEVEL, DRAW_OF_CELL = range(4)  # purposes of a block's random numbers: none is used for two
_SMALLEST = 1e-8  # gamma shapes below this give zeros anyway

Result = TypeVar("Result")


@dataclass(frozen=True)
class Block:
    """One perturbation in one context, for a slice of the genes.

    Attributes
    ----------
    perturbation, context
        Positions among the predicted perturbations and contexts.
    genes
        Slice of the genes.
    """

    perturbation: int
    context: int
    genes: slice

    def generator(self, seed: int, label: str, context: str, *purpose: int) -> np.random.Generator:
        """Random numbers of this block: they depend on its labels, not on its position."""
        entropy = [seed, crc32(label.encode()), crc32(context.encode()), self.genes.start, *purpose]
        return np.random.default_rng(entropy)


def blocks(n_perturbations: int, n_contexts: int, n_genes: int) -> list[Block]:
    """All blocks, in order."""
    starts = range(0, n_genes, BLOCK_GENES)
    return [
        Block(p, c, slice(start, min(start + BLOCK_GENES, n_genes)))
        for p in range(n_perturbations)
        for c in range(n_contexts)
        for start in starts
    ]


def map_blocks(
    function: Callable[[Block], Result], todo: Sequence[Block], *, progress_bar: bool = False
) -> Iterator[tuple[Block, Result]]:
    """Apply a function to each block on all cores, with a bounded number of results in memory."""
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


def softmax(logits: NDArray) -> NDArray:
    """Probabilities along the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def expected_histograms(
    probs: Float32[np.ndarray, "draw gene bin"],
    concentration: Float32[np.ndarray, " gene"],
    counts: Int[np.ndarray, "gene bin"] | None = None,
) -> Float32[np.ndarray, "draw gene bin"]:
    """E[h | π, κ, n] = (κ π + n) / (κ + N): the Dirichlet's mean, given the group's own cells where there are any."""
    if counts is None:
        return probs
    counts = counts.astype(np.float32)
    total = concentration + counts.sum(axis=-1)
    return (concentration[:, None] * probs + counts) / total[:, None]


def sample_histograms(
    rng: np.random.Generator,
    probs: Float32[np.ndarray, "draw gene bin"],
    concentration: Float32[np.ndarray, " gene"],
    counts: Int[np.ndarray, "gene bin"] | None = None,
) -> Float32[np.ndarray, "draw gene bin"]:
    """Draw h ~ Dirichlet(κ π + n), through independent gammas."""
    shape = concentration[:, None] * probs
    if counts is not None:
        shape += counts
    np.maximum(shape, _SMALLEST, out=shape)
    gammas = rng.standard_gamma(shape, dtype=np.float32)
    total = gammas.sum(axis=-1, keepdims=True)
    # At concentrations far below one all gammas can underflow; the Dirichlet then sits on one bin, bin b with
    # probability proportional to its shape.
    empty = total[..., 0] == 0
    if empty.any():
        cdf = shape[empty].cumsum(axis=-1)
        chosen = (rng.random((len(cdf), 1)) * cdf[:, -1:] > cdf[:, :-1]).sum(axis=-1)
        gammas[empty] = np.arange(cdf.shape[-1]) == chosen[:, None]
        total = gammas.sum(axis=-1, keepdims=True)
    gammas /= total
    return gammas


def sample_replicates(
    rng: np.random.Generator, histograms: Float32[np.ndarray, "draw gene bin"], n_cells: int
) -> Float32[np.ndarray, "draw gene bin"]:
    """Histograms of ``n_cells`` cells drawn from each given histogram."""
    exact = histograms.astype(np.float64)
    exact /= exact.sum(axis=-1, keepdims=True)
    return (rng.multinomial(n_cells, exact) / n_cells).astype(np.float32)
