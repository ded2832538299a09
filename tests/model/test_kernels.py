"""The kernel against its formula, and its choice against responses drawn with a known length scale."""

import numpy as np
import pytest

from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import explained_variance
from distpert.model.kernels import (
    LENGTH_SCALES,
    SHARED,
    Kernel,
    choose_kernel,
    distances,
    genes_in_common,
    kernel_between,
)


def some_embeddings(n, dims=2, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)
    return Embeddings(tuple(f"G{i}" for i in range(n)), vectors, (dims,))


def test_distances_and_kernel_by_loop():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    matrix, smooth = Kernel(1.7)(left, right), Kernel(1.7, 2.0)(left, right)
    for i in range(4):
        for j in range(5):
            distance = np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(left[i], right[j], strict=True)))
            np.testing.assert_allclose(distances(left, right)[i, j], distance, rtol=1e-12)
            np.testing.assert_allclose(matrix[i, j], np.exp(-distance / 1.7), rtol=1e-12)
            np.testing.assert_allclose(smooth[i, j], np.exp(-(distance**2) / 1.7**2), rtol=1e-12)


def test_kernel_is_a_correlation():
    vectors = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    vectors[7] = vectors[3]
    matrix = Kernel(0.8)(vectors, vectors)
    assert (matrix.diagonal() == 1).all()
    assert matrix[3, 7] == 1
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12


def test_correlation_falls_to_one_over_e():
    np.testing.assert_allclose(Kernel(2.5)(np.zeros((1, 1)), np.array([[2.5]])), np.exp(-1))


def test_kernel_between_perturbations():
    embeddings = some_embeddings(4)
    left, right = ["G0", "NEW", "G1+G2", "G1+NEW"], ["G2+G1", "G3", "NEW", "G0"]
    matrix = kernel_between(left, right, embeddings, Kernel(1.0))
    assert matrix.shape == (4, 4)
    vectors = embeddings.vectors.astype(float)
    np.testing.assert_allclose(matrix[0, 1], np.exp(-np.linalg.norm(vectors[0] - vectors[3])))
    np.testing.assert_allclose(matrix[0, 0], np.exp(-np.linalg.norm(vectors[0] - vectors[1] - vectors[2])), rtol=1e-6)
    assert matrix[2, 0] == 1  # the order of a pair's genes does not matter
    assert matrix[0, 3] == 1
    # Without an embedding, no kernel with any: not even with the same label.
    np.testing.assert_array_equal(matrix[[1, 3]], 0)
    np.testing.assert_array_equal(matrix[:, 2], 0)


@pytest.mark.parametrize("labels", [["NEW"], []])
def test_kernel_between_unknown_perturbations(labels):
    np.testing.assert_array_equal(kernel_between(labels, ["G0", "G1"], some_embeddings(2), Kernel(1.0)), 0)
    assert kernel_between(labels, ["G0", "G1"], some_embeddings(2), Kernel(1.0)).shape == (len(labels), 2)


def simulated_choice(relative_scale, seed, n=60, n_factors=16, share=0.95, power=1.0):
    embeddings = some_embeddings(n, seed=seed)
    rng = np.random.default_rng(seed)
    far = distances(embeddings.vectors, embeddings.vectors)
    typical = np.median(far[np.triu_indices(n, 1)])
    covariance = share * np.exp(-((far / (relative_scale * typical)) ** power)) + (1 - share) * np.eye(n)
    response = np.linalg.cholesky(covariance) @ rng.normal(size=(n, n_factors))
    kernel, *eigen = choose_kernel(embeddings, embeddings.genes, response)
    return kernel.length_scale / typical, explained_variance(response, *eigen)[0], kernel.power


def test_choice_recovers_the_length_scale():
    truths = (0.25, 0.7, 2.0)
    chosen = np.array([[simulated_choice(truth, seed)[0] for seed in range(3)] for truth in truths])
    assert np.isclose(chosen[..., None], LENGTH_SCALES).any(axis=-1).all()  # of those that are tried
    center = np.median(chosen, axis=1)
    assert center[0] < center[1] < center[2]
    assert (np.abs(np.log(center / truths)) < np.log(1.5)).all()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_choice_recovers_the_power(power):
    assert [simulated_choice(0.7, seed, power=power)[2] for seed in range(3)] == [power] * 3


def test_choice_recovers_the_share():
    assert simulated_choice(0.7, 0, share=0.95)[1].mean() > 0.7
    assert simulated_choice(0.7, 0, share=0.02)[1].mean() < 0.3


def test_choice_returns_the_kernel_of_all_perturbations():
    embeddings = some_embeddings(8)
    perturbations = [*embeddings.genes, "NEW", "NEWER", "G0+G1"]
    response = np.random.default_rng(0).normal(size=(11, 3))
    kernel, eigenvalues, eigenvectors = choose_kernel(embeddings, perturbations, response)
    matrix = eigenvectors @ np.diag(eigenvalues) @ eigenvectors.T
    expected = kernel_between(perturbations, perturbations, embeddings, kernel)
    expected[8, 8] = expected[9, 9] = 1  # related to no other, but a response like any other
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


def test_embeddings_that_tell_nothing_apart():
    vectors = np.r_[np.ones((3, 2)), [[0.0, 1.0]]].astype(np.float32)
    same = Embeddings(("A", "B", "C", "D"), vectors, (2,))
    with pytest.raises(ValueError, match="same embedding"):
        choose_kernel(same, ["A", "B", "C"], np.zeros((3, 1)))
    # Some equal ones do no harm.
    kernel, *_ = choose_kernel(same, ["A", "B", "C", "D"], np.eye(4)[:, :2])
    assert kernel.length_scale > 0


def test_genes_in_common_by_loop():
    left, right = ["A", "A+B", "C+D"], ["B+A", "A", "A+E", "F"]
    for label, row in zip(left, genes_in_common(left, right), strict=True):
        for other, value in zip(right, row, strict=True):
            genes, others = set(label.split("+")), set(other.split("+"))
            np.testing.assert_allclose(value, len(genes & others) / np.sqrt(len(genes) * len(others)))


def test_kernel_of_shared_genes():
    embeddings = some_embeddings(4)
    labels = ["G0", "G1", "G0+G1", "G1+G2", "G0+NEW"]
    plain, mixed = (kernel_between(labels, labels, embeddings, Kernel(1.3, 2.0, weight)) for weight in (0.0, 0.4))
    expected = 0.6 * plain + 0.4 * genes_in_common(labels, labels)
    np.testing.assert_allclose(mixed[:4, :4], expected[:4, :4])
    np.testing.assert_array_equal(mixed[4], 0)  # of a gene without an embedding nothing is told, whatever it shares
    assert np.linalg.eigvalsh(mixed[:4, :4]).min() > 0


@pytest.mark.parametrize("truth", [0.0, 0.6])
def test_choice_of_the_weight_of_shared_genes(truth):
    rng = np.random.default_rng(3)
    embeddings = some_embeddings(40, dims=8)
    pairs = rng.choice(40, (60, 2))
    labels = [*embeddings.genes, *sorted({f"G{min(a, b)}+G{max(a, b)}" for a, b in pairs if a != b})]
    far = distances(embeddings.of(labels), embeddings.of(labels))
    kernel = Kernel(0.7 * np.median(far[far > 0]), 2.0, truth)
    covariance = 0.9 * kernel_between(labels, labels, embeddings, kernel) + 0.1 * np.eye(len(labels))
    response = np.linalg.cholesky(covariance) @ rng.normal(size=(len(labels), 12))
    chosen, *_ = choose_kernel(embeddings, labels, response)
    assert chosen.shared in SHARED
    assert abs(chosen.shared - truth) <= 0.15
    assert chosen.length_scale == pytest.approx(kernel.length_scale, rel=0.45)


def test_genes_that_no_two_labels_share_have_no_weight():
    embeddings = some_embeddings(12)
    # G0 is shared with a label that has no embedding, which tells nothing of others.
    labels = [*embeddings.genes[:8], "G8+G9", "G10+G11", "G0+NEW"]
    assert choose_kernel(embeddings, labels, np.random.default_rng(0).normal(size=(11, 3)))[0].shared == 0
