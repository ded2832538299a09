"""Blocks: all of them, in order, each with random numbers of its own."""

import os
import threading

import numpy as np
import pytest

from distpert.predictions.blocks import BLOCK_GENES, Block, blocks, map_blocks
from distpert.predictions.draws import DRAW_OF_CELL, HISTOGRAM, LEVEL, REPLICATE


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


def test_there_may_be_no_blocks():
    assert list(map_blocks(len, [])) == []
