"""The kernel against its formula; missing sources against the conditional covariances of normals."""

import numpy as np
import pytest

from distpert.embeddings.vectors import Embeddings
from distpert.model.kernels import (
    JITTER,
    Kernel,
    Points,
    complete,
    distances,
    genes_in_common,
    kernel_between,
    parts_between,
    powered_exponential,
    typical_distance,
)


def some_embeddings(n, dims=2, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)
    return Embeddings(tuple(f"G{i}" for i in range(n)), vectors, (dims,))


def two_sources(n=9, lacking=(), lacking_first=(), seed=0):
    """Sources of two and three dims; the second and the first lack some genes."""
    vectors = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    covered = np.ones((n, 2), bool)
    covered[list(lacking), 1] = False
    covered[list(lacking_first), 0] = False
    vectors[:, :2] *= covered[:, :1]
    vectors[:, 2:] *= covered[:, 1:]
    return Embeddings(tuple(f"G{i}" for i in range(n)), vectors, (2, 3), ("text", "go"), covered)


def kernel_of(embeddings, weights=(0.7, 0.3), power=2.0):
    scales = (1.1, 1.7)
    return Kernel(weights, scales, power, reference=embeddings.genes, auxiliary=(0.8, 1.3))


def test_distances_and_kernel_by_loop():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    far = distances(left, right)
    rough, smooth = (powered_exponential(far, 1.7, power) for power in (1.0, 2.0))
    for i in range(4):
        for j in range(5):
            distance = np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(left[i], right[j], strict=True)))
            np.testing.assert_allclose(far[i, j], distance, rtol=1e-12)
            np.testing.assert_allclose(rough[i, j], np.exp(-distance / 1.7), rtol=1e-12)
            np.testing.assert_allclose(smooth[i, j], np.exp(-(distance**2) / 1.7**2), rtol=1e-12)


def test_kernel_is_a_correlation():
    embeddings = some_embeddings(30)
    embeddings.vectors[7] = embeddings.vectors[3]
    matrix = kernel_between(embeddings.genes, embeddings.genes, embeddings, Kernel((1.0,), (0.8,)))
    assert (matrix.diagonal() == 1).all()
    assert matrix[3, 7] == 1
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12


def test_kernel_between_perturbations():
    embeddings = some_embeddings(4)
    left, right = ["G0", "NEW", "G1+G2", "G1+NEW"], ["G2+G1", "G3", "NEW", "G0"]
    matrix = kernel_between(left, right, embeddings, Kernel((1.0,), (1.0,)))
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
    matrix = kernel_between(labels, ["G0", "G1"], some_embeddings(2), Kernel((1.0,), (1.0,)))
    assert matrix.shape == (len(labels), 2)
    np.testing.assert_array_equal(matrix, 0)


def test_sources_add_up_by_their_weights():
    embeddings = two_sources()
    labels = ["G0", "G3", "G1+G2"]
    parts = parts_between(labels, labels, embeddings, kernel_of(embeddings))
    assert list(parts) == ["text", "go"]
    vectors = embeddings.of(labels).astype(float)
    for name, columns, weight, scale in (("text", slice(2), 0.7, 1.1), ("go", slice(2, 5), 0.3, 1.7)):
        far = np.linalg.norm(vectors[:, None, columns] - vectors[None, :, columns], axis=-1)
        np.testing.assert_allclose(parts[name], weight * np.exp(-((far / scale) ** 2)), rtol=1e-9)
    only = kernel_between(labels, labels, embeddings, kernel_of(embeddings, (0.0, 1.0)))
    np.testing.assert_allclose(only, parts["go"] / 0.3)


def test_joint_part():
    """Distances in both sources, in units of typical ones; a missing vector is the mean."""
    embeddings = two_sources(lacking=(3,))
    kernel = Kernel(
        (0.0, 0.0), (1.0, 1.0), 2.0, auxiliary=(0.8, 1.3), joint=0.9, joint_scale=0.7, proportions=(0.25, 0.75)
    )  # fmt: skip
    labels = ["G0", "G3", "G1+G2"]
    parts = parts_between(labels, labels, embeddings, kernel)
    assert list(parts) == ["all at once"]
    vectors = embeddings.of(labels).astype(float)
    for i in range(3):
        for j in range(3):
            gap = vectors[i] - vectors[j]
            squared = 0.25 * (gap[:2] ** 2).sum() / 1.6**2 + 0.75 * (gap[2:] ** 2).sum() / 2.6**2
            assert parts["all at once"][i, j] == pytest.approx(0.9 * np.exp(-squared / 0.7**2))
    assert kernel.source_weights == pytest.approx((0.225, 0.675))
    assert Kernel((0.4, 0.6), (1.0, 1.0)).source_weights == (0.4, 0.6)


def completed_by_hand(embeddings, kernel, labels, lacking):
    """Covariance of the second source: what it lacks depends on the rest as under the kernel of the first."""
    n, m = len(labels), len(lacking)
    vectors = embeddings.of(labels).astype(float)
    far_text, far_go = (
        np.linalg.norm(vectors[:, None, columns] - vectors[None, :, columns], axis=-1)
        for columns in (slice(2), slice(2, 5))
    )
    text, go = np.exp(-((far_text / 0.8) ** 2)), np.exp(-((far_go / 1.7) ** 2))
    has = np.setdiff1d(np.arange(n), lacking)
    slope = text[np.ix_(lacking, has)] @ np.linalg.inv(text[np.ix_(has, has)] + JITTER * np.eye(n - m))
    rest = text[np.ix_(lacking, lacking)] - slope @ text[np.ix_(has, lacking)]
    full = go.copy()
    full[np.ix_(lacking, has)] = slope @ go[np.ix_(has, has)]
    full[np.ix_(has, lacking)] = full[np.ix_(lacking, has)].T
    full[np.ix_(lacking, lacking)] = slope @ go[np.ix_(has, has)] @ slope.T + rest
    return full / np.sqrt(np.outer(full.diagonal(), full.diagonal()))


def test_a_source_that_lacks_genes_is_completed_from_the_other():
    embeddings = two_sources(lacking=(2, 5, 6))
    kernel = kernel_of(embeddings)
    labels = list(embeddings.genes)
    expected = completed_by_hand(embeddings, kernel, labels, [2, 5, 6])
    found = parts_between(labels, labels, embeddings, kernel)["go"] / 0.3
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    assert np.linalg.eigvalsh(found).min() > -1e-9
    np.testing.assert_allclose(found.diagonal(), 1)


def test_new_labels_are_completed_as_if_they_had_been_there():
    """The kernel of unseen labels does not depend on which others are asked for."""
    embeddings = two_sources(n=12, lacking=(2, 5, 10))
    kernel = Kernel((0.4, 0.6), (1.1, 1.7), 2.0, reference=embeddings.genes[:9], auxiliary=(0.8, 1.3))
    everything = kernel_between(embeddings.genes, embeddings.genes, embeddings, kernel)
    np.testing.assert_allclose(everything, everything.T, atol=1e-12)
    assert np.linalg.eigvalsh(everything).min() > -1e-9
    for rows in ([10], [11, 10, 2]):
        some = kernel_between([f"G{i}" for i in rows], embeddings.genes, embeddings, kernel)
        np.testing.assert_allclose(some, everything[rows], atol=1e-12)


def test_the_same_kernel_in_both_sources_is_completed_to_itself():
    """If the second source is the first, what it lacks is known from it; only the jitter is in the way."""
    vectors = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    covered = np.ones((10, 2), bool)
    covered[[1, 4], 1] = False
    both = np.concatenate([vectors, vectors * covered[:, 1:]], axis=1)
    embeddings = Embeddings(tuple(f"G{i}" for i in range(10)), both, (2, 2), covered=covered)
    kernel = Kernel((0.5, 0.5), (0.9, 0.9), 2.0, reference=embeddings.genes, auxiliary=(0.9, 0.9))
    first, second = parts_between(embeddings.genes, embeddings.genes, embeddings, kernel).values()
    np.testing.assert_allclose(second, first, atol=2e-3)


def test_without_any_reference_a_missing_gene_depends_on_none():
    embeddings = two_sources(lacking=(0, 1))
    kernel = Kernel((0.0, 1.0), (1.1, 1.7), 2.0, auxiliary=(0.8, 1.3))
    matrix = kernel_between(embeddings.genes, embeddings.genes, embeddings, kernel)
    np.testing.assert_array_equal(matrix[:2, 2:], 0)
    np.testing.assert_allclose(matrix[0, 0], 1)


def test_genes_of_different_sources_only():
    """No source has both: each is completed in the source that it lacks."""
    embeddings = two_sources(lacking=(0,), lacking_first=(1,))
    matrix = kernel_between(["G0", "G1"], ["G0", "G1"], embeddings, kernel_of(embeddings))
    assert np.isfinite(matrix).all()
    assert 0 < abs(matrix[0, 1]) < 1
    # Nor has a source both genes of the pair, which then depends on nothing.
    pair = kernel_between(["G0+G1"], embeddings.genes, embeddings, kernel_of(embeddings))
    np.testing.assert_array_equal(pair, 0)


def test_a_completion_is_a_regression():
    """Of missing labels on the reference, under the kernel of the other source."""
    embeddings = two_sources(lacking=(3,))
    kernel = kernel_of(embeddings)
    points = Points.of(embeddings.genes, embeddings)
    covered, missing = points.split(1)
    assert missing.tolist() == [3]
    completion = complete(points.take(missing), points.take(covered), kernel, 1)
    far = distances(points.vectors[:, :2], points.vectors[:, :2])
    text = np.exp(-((far / 0.8) ** 2))
    np.testing.assert_allclose(completion.auxiliary[0], text[3, covered])
    within = text[np.ix_(covered, covered)] + JITTER * np.eye(8)
    np.testing.assert_allclose(completion.slope[0], np.linalg.solve(within, text[covered, 3]))


def test_genes_in_common_by_loop():
    left, right = ["A", "A+B", "C+D"], ["B+A", "A", "A+E", "F"]
    for label, row in zip(left, genes_in_common(left, right), strict=True):
        for other, value in zip(right, row, strict=True):
            genes, others = set(label.split("+")), set(other.split("+"))
            np.testing.assert_allclose(value, len(genes & others) / np.sqrt(len(genes) * len(others)))


def test_kernel_of_shared_genes():
    embeddings = some_embeddings(4)
    labels = ["G0", "G1", "G0+G1", "G1+G2", "G0+NEW"]
    plain = kernel_between(labels, labels, embeddings, Kernel((1.0,), (1.3,), 2.0))
    mixed = kernel_between(labels, labels, embeddings, Kernel((0.6,), (1.3,), 2.0, 0.4))
    expected = 0.6 * plain + 0.4 * genes_in_common(labels, labels)
    np.testing.assert_allclose(mixed[:4, :4], expected[:4, :4])
    np.testing.assert_array_equal(mixed[4], 0)  # of a gene without an embedding nothing is told, whatever it shares
    assert np.linalg.eigvalsh(mixed[:4, :4]).min() > 0


def test_typical_distance():
    assert typical_distance(np.array([[0.0], [0.0], [1.0], [3.0]])) == 2.0  # of 1, 1, 2, 3, 3; equal ones do not count
    assert typical_distance(np.ones((3, 2))) == 0.0
