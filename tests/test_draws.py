"""Draws of histograms against closed forms."""

import os
import threading

import numpy as np
import pytest
from scipy.stats import multinomial

from distpert.predictions.draws import (
    BLOCK_GENES,
    DRAW_OF_CELL,
    HISTOGRAM,
    LEVEL,
    REPLICATE,
    Block,
    blocks,
    expected_histograms,
    map_blocks,
    sample_histograms,
    sample_replicates,
    softmax,
)

PROBS = np.array([[0.5, 0.3, 0.15, 0.05], [0.01, 0.09, 0.2, 0.7]], np.float32)
CONCENTRATION = np.array([20.0, 200.0], np.float32)
COUNTS = np.array([[0, 3, 40, 1], [500, 0, 0, 2]], np.int32)
N = 20_000


def rng(seed=0):
    return np.random.default_rng(seed)


def repeated(n=N):
    return np.repeat(PROBS[None], n, axis=0)


@pytest.mark.parametrize("counts", [None, COUNTS])
def test_mean_and_variance_of_the_dirichlet(counts):
    drawn = sample_histograms(rng(), repeated(), CONCENTRATION, counts)
    assert drawn.dtype == np.float32
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=-1), 1, atol=1e-5)
    alpha = CONCENTRATION[:, None].astype(float) * PROBS + (0 if counts is None else counts)
    total = alpha.sum(axis=-1, keepdims=True)
    mean = alpha / total
    variance = mean * (1 - mean) / (total + 1)
    assert (abs(drawn.mean(axis=0) - mean) < 6 * np.sqrt(variance / N)).all()
    np.testing.assert_allclose(drawn.var(axis=0, dtype=float), variance, rtol=0.15)


def test_covariance_of_the_dirichlet():
    drawn = sample_histograms(rng(), repeated(), CONCENTRATION)[:, 0].astype(float)
    p = PROBS[0].astype(float)
    expected = (np.diag(p) - np.outer(p, p)) / (CONCENTRATION[0] + 1)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=6 * expected.max() / np.sqrt(N))


@pytest.mark.parametrize("concentration", [1e-30, 1e-8, 1e-3, 0.1, 1e8])
def test_extreme_concentrations_give_distributions(concentration):
    drawn = sample_histograms(rng(), repeated(500), np.full(2, concentration, np.float32))
    assert np.isfinite(drawn).all()
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=-1), 1, atol=1e-5)
    if concentration < 0.01:  # a Dirichlet's limit is one bin
        assert np.median(drawn.max(axis=-1)) > 0.999
    if concentration > 1e6:
        np.testing.assert_allclose(drawn, repeated(500), atol=1e-3)


def test_bins_without_probability_stay_empty():
    probs = np.array([[[1.0, 0.0, 0.0]]], np.float32).repeat(100, axis=0)
    drawn = sample_histograms(rng(), probs, np.ones(1, np.float32))
    np.testing.assert_allclose(drawn, probs, atol=1e-6)


def test_arguments_are_left_as_they_are():
    probs, counts, concentration = repeated(5), COUNTS.copy(), CONCENTRATION.copy()
    sample_histograms(rng(), probs, concentration, counts)
    expected_histograms(probs, concentration, counts)
    sample_replicates(rng(), probs, 10)
    np.testing.assert_array_equal(probs, repeated(5))
    np.testing.assert_array_equal(counts, COUNTS)
    np.testing.assert_array_equal(concentration, CONCENTRATION)


def test_expected_histograms():
    np.testing.assert_array_equal(expected_histograms(repeated(3), CONCENTRATION), repeated(3))
    expected = expected_histograms(repeated(3), CONCENTRATION, COUNTS)
    assert expected.dtype == np.float32
    for gene in range(2):
        alpha = CONCENTRATION[gene] * PROBS[gene].astype(float) + COUNTS[gene]
        np.testing.assert_allclose(expected[:, gene], np.tile(alpha / alpha.sum(), (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("n_cells", [1, 7, 1000])
def test_replicates(n_cells):
    drawn = sample_replicates(rng(), repeated(), n_cells)
    assert drawn.dtype == np.float32
    cells = drawn * n_cells
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-3)
    np.testing.assert_array_equal(np.rint(cells).sum(axis=-1), n_cells)
    for gene, p in enumerate(PROBS.astype(float)):
        exact = multinomial(n_cells, p / p.sum()).cov() / n_cells**2
        assert (abs(drawn[:, gene].mean(axis=0) - p) < 6 * np.sqrt(np.diag(exact) / N)).all()
        np.testing.assert_allclose(drawn[:, gene].var(axis=0, dtype=float), np.diag(exact), rtol=0.1)


def test_softmax():
    logits = np.array([[0.0, 1.0, -2.0], [1000.0, 1000.0, -1000.0]])
    given = logits.copy()
    exact = np.exp(logits[0]) / np.exp(logits[0]).sum()
    result = softmax(given)
    np.testing.assert_allclose(result, [exact, [0.5, 0.5, 0]])
    assert result is given  # in place


def test_blocks_cover_everything_once():
    n_genes = 2 * BLOCK_GENES + 3
    seen = np.zeros((2, 3, n_genes), int)
    for block in blocks(2, 3, n_genes):
        assert block.genes.stop - block.genes.start <= BLOCK_GENES
        seen[block.perturbation, block.context, block.genes] += 1
    assert (seen == 1).all()


def test_random_numbers_follow_the_label_and_not_the_position():
    def numbers(position=0, seed=0, label="A", context="all", start=0, purpose=0):
        block = Block(position, position, slice(start, start + 5))
        return block.generator(seed, label, context, purpose).random(4).tolist()

    first = numbers()
    assert numbers(position=3) == first
    others = [numbers(seed=1), numbers(label="B"), numbers(context="day 1"), numbers(start=512), numbers(purpose=1)]
    assert all(other != first for other in others)
    assert len({tuple(other) for other in others}) == len(others)


def test_no_two_purposes_have_the_same_random_numbers():
    block = Block(0, 0, slice(0, 5))
    purposes = [(HISTOGRAM,), (REPLICATE,), (LEVEL, 0), (LEVEL, 1), (DRAW_OF_CELL, 0), (DRAW_OF_CELL, 1)]
    assert len({block.generator(0, "A", "all", *purpose).random() for purpose in purposes}) == len(purposes)


def test_map_blocks_keeps_order_and_bounds_what_is_in_memory(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    lock, alive, most = threading.Lock(), 0, 0

    def work(block):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return block.genes.start

    todo = [Block(0, 0, slice(i, i + 1)) for i in range(200)]
    results = []
    for block, value in map_blocks(work, todo):
        with lock:
            alive -= 1
        assert value == block.genes.start
        results.append(block)
    assert results == todo
    assert most <= 2 * 2 + 1


def test_map_blocks_passes_errors_on():
    def work(block):
        raise RuntimeError("no block")

    with pytest.raises(RuntimeError, match="no block"):
        list(map_blocks(work, [Block(0, 0, slice(0, 1))]))
