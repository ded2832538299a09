"""Control histograms, against loops."""

import numpy as np

from distpert.training.controls import PSEUDO_CELLS, UNIFORM_CELLS, observed_controls, smoothed_controls


def counted_groups(seed=0, n_bins=5):
    rng = np.random.default_rng(seed)
    context = np.array([0, 1, 0, 1, 1, 0])
    is_control = np.array([True, True, False, False, True, False])
    n_cells = np.array([40, 300, 25, 60, 1, 2])
    chance = rng.dirichlet(np.ones(n_bins), size=(6, 3))
    chance[:, 0, -1] = 0  # a bin that no cell is in
    counts = np.stack([rng.multinomial(n, p / p.sum(-1, keepdims=True)) for n, p in zip(n_cells, chance, strict=True)])
    return counts.astype(np.int32), n_cells, context, is_control


def test_smoothed_controls_by_loop():
    counts, n_cells, context, is_control = counted_groups()
    ours = smoothed_controls(counts, n_cells, context, is_control)
    assert ours.shape == (2, 3, 5)
    for c in range(2):
        for g in range(3):
            for b in range(5):
                here = [r for r in range(6) if context[r] == c]
                pooled = sum(int(counts[r, g, b]) for r in here) + UNIFORM_CELLS / 5
                pooled /= sum(n_cells[here]) + UNIFORM_CELLS
                rows = [r for r in range(6) if is_control[r] and context[r] == c]
                seen = sum(int(counts[r, g, b]) for r in rows)
                expected = (seen + PSEUDO_CELLS * pooled) / (sum(int(n_cells[r]) for r in rows) + PSEUDO_CELLS)
                np.testing.assert_allclose(ours[c, g, b], expected, rtol=1e-12)
    np.testing.assert_allclose(ours.sum(axis=-1), 1, rtol=1e-12)
    assert (ours > 0).all()


def test_observed_controls_are_those_of_the_control_cells():
    counts, n_cells, context, is_control = counted_groups()
    ours = observed_controls(counts, n_cells, context, is_control)
    np.testing.assert_allclose(ours[0], counts[0] / 40, rtol=1e-12)
    np.testing.assert_allclose(ours[1], (counts[1] + counts[4]) / 301, rtol=1e-12)


def test_the_base_of_a_context_owes_nothing_to_others():
    counts, n_cells, context, is_control = counted_groups()
    ours = smoothed_controls(counts, n_cells, context, is_control)
    changed = np.where((context == 0)[:, None, None], counts[:, :, ::-1], counts)
    again = smoothed_controls(changed, n_cells, context, is_control)
    np.testing.assert_array_equal(again[1], ours[1])
    alone = is_control | (context == 0)  # context 1 without its perturbed cells
    bare = smoothed_controls(counts[alone], n_cells[alone], context[alone], is_control[alone])[1]
    control = observed_controls(counts, n_cells, context, is_control)[1]
    assert np.abs(bare - control).max() < 1 / 301


def test_many_control_cells_speak_for_themselves():
    counts = np.array([[[600_000, 300_000, 100_000]], [[0, 0, 10]]], np.int32)
    ours = smoothed_controls(counts, np.array([1_000_000, 10]), np.zeros(2, int), np.array([True, False]))
    np.testing.assert_allclose(ours, [[[0.6, 0.3, 0.1]]], atol=1e-4)


def test_counts_may_be_unsigned_and_many():
    counts = np.full((2, 1, 2), 2**31, np.uint32)
    ours = smoothed_controls(counts, np.array([2**32, 2**32]), np.zeros(2, int), np.array([True, False]))
    np.testing.assert_allclose(ours, 0.5)
