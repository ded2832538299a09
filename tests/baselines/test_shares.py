"""Shares and shifts of training groups, and what stands in for groups without cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distpert.baselines.shares import TrainingShares, add_shift, check_training, smooth, stand_in
from distpert.histograms.histograms import Histograms

DAYS = ("d1", "d2", "d3")


def test_shares(tiny):
    shares = TrainingShares(tiny.histograms)
    np.testing.assert_allclose(shares.control, [tiny.shares("control", day) for day in DAYS], rtol=1e-12)
    assert shares.n_control.tolist() == [40, 25, 30]
    assert shares.n_pooled.tolist() == [50, 49, 0]
    assert shares.n_cells("A").tolist() == [12, 20, 0]
    for label in tiny.histograms.perturbations:
        for day, n_cells, shift, mean_shift in zip(
            DAYS, shares.n_cells(label), shares.shift(label), shares.mean_shift(label), strict=True
        ):
            assert n_cells == len(tiny.cells(label, day))
            np.testing.assert_allclose(shift, tiny.shift(label, day) if n_cells else 0, atol=1e-12)
            np.testing.assert_allclose(mean_shift, (tiny.shift(label, day) * tiny.centers).sum(axis=-1), atol=1e-12)


def test_smoothed_controls_are_positive(tiny):
    shares = TrainingShares(tiny.histograms)
    for smoothed in (shares.smoothed_control, shares.smoothed_pooled):
        assert (smoothed > 0).all()
        np.testing.assert_allclose(smoothed.sum(axis=-1), 1)
    np.testing.assert_allclose(shares.smoothed_pooled[2], smooth(shares.pooled, np.array([1, 1, 30]))[2])


def test_stand_in():
    shift = np.array([[1.0, 2.0], [9.0, 9.0], [3.0, 6.0]])
    np.testing.assert_array_equal(stand_in(shift, np.array([True, False, True])), [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    np.testing.assert_array_equal(stand_in(shift, np.array([True] * 3)), shift)


@given(st.integers(0, 2**32), st.floats(0, 3))
def test_moved_shares_are_shares(seed, factor):
    rng = np.random.default_rng(seed)
    shares, other = rng.dirichlet(np.full(5, 0.5), size=(2, 4))
    moved = add_shift(shares, factor * (other - shares))
    assert (moved >= 0).all()
    np.testing.assert_allclose(moved.sum(axis=-1), 1)
    if factor <= 1:
        np.testing.assert_allclose(moved, (1 - factor) * shares + factor * other, atol=1e-12)


def test_smooth():
    np.testing.assert_allclose(smooth(np.array([[[1.0, 0.0]]]), np.array([3])), [[[3.5 / 4, 0.5 / 4]]])


def test_check_training(tiny, tiny_all):
    assert check_training(tiny.histograms, tiny.embeddings, fewest=5) is tiny.embeddings
    with pytest.raises(ValueError, match=r"the training has 5 perturbations; at least 6 are needed"):
        check_training(tiny.histograms, tiny.embeddings, fewest=6)
    perturbed = np.flatnonzero((tiny_all.histograms.dataset["perturbation"] != "control").to_numpy())
    with pytest.raises(ValueError, match=r"the histograms have no control cells\. Count them together"):
        check_training(Histograms(tiny_all.histograms.dataset.isel(group=perturbed)), tiny_all.embeddings)
