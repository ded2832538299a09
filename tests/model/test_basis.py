"""The basis of shifts: its prior is a walk with correlated steps, and both it and the cells see coordinates apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpert.model.basis import coordinates, information, shift_basis


def histograms(seed=0, n_genes=3, n_bins=8):
    return np.random.default_rng(seed).dirichlet(np.full(n_bins, 0.7), size=n_genes)


@pytest.mark.parametrize("smoothness", [0.0, 0.8, 0.95])
def test_prior_of_steps(smoothness):
    """V V' has the covariance of a walk: that of its steps is the smoothness to the power of their distance."""
    basis = shift_basis(histograms(), smoothness)
    steps = np.diff(basis, axis=1)
    lag = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    for gene in steps:
        np.testing.assert_allclose(gene @ gene.T, smoothness**lag, atol=1e-10)


def test_information_is_diagonal():
    h = histograms(1)
    basis = shift_basis(h, 0.8)
    for gene, probs, ours in zip(basis, h, information(basis, h), strict=True):
        fisher = gene.T @ (np.diag(probs) - np.outer(probs, probs)) @ gene
        np.testing.assert_allclose(fisher, np.diag(np.diag(fisher)), atol=1e-12)
        np.testing.assert_allclose(ours, np.diag(fisher), atol=1e-12)
        assert (np.diff(ours) <= 1e-12).all()  # best informed first


def test_information_elsewhere():
    """At another histogram it is the variance of each direction over the bins."""
    basis, other = shift_basis(histograms(2), 0.5), histograms(3)
    ours = information(basis, other)
    for g in range(3):
        for j in range(7):
            mean = other[g] @ basis[g, :, j]
            assert ours[g, j] == pytest.approx(other[g] @ (basis[g, :, j] - mean) ** 2, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), smoothness=st.floats(0, 0.97), n_bins=st.integers(2, 15))
def test_coordinates_give_the_shift_back(seed, smoothness, n_bins):
    rng = np.random.default_rng(seed)
    basis = shift_basis(rng.dirichlet(np.full(n_bins, 0.5), size=2), smoothness)
    shift = rng.normal(size=(4, 2, n_bins))
    back = np.einsum("agj,gbj->agb", coordinates(shift, basis), basis)
    difference = back - shift
    np.testing.assert_allclose(difference - difference[..., :1], 0, atol=1e-7)  # a constant shifts no histogram


def test_a_gene_in_one_bin_has_no_information():
    one = np.eye(5)[[2]]
    assert information(shift_basis(one, 0.8), one) == pytest.approx(np.zeros((1, 4)), abs=1e-12)
