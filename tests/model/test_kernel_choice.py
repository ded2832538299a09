"""Choice of the kernel: gradients by differences, and settings of simulated responses."""

from dataclasses import replace

import numpy as np
import pytest

from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import explained_variance, kernel_evidence
from distpert.model.kernel_choice import LEAST_WEIGHT, MOST_LABELS, choose_kernel, diagonalize
from distpert.model.kernels import Kernel, Points, distances, joint_distances, kernel_between, parts_between


def some_embeddings(n, dims=(2,), seed=0, covered=None):
    vectors = np.random.default_rng(seed).normal(size=(n, sum(dims))).astype(np.float32)
    covered = np.ones((n, len(dims)), bool) if covered is None else covered
    vectors *= np.repeat(covered, dims, axis=1)
    return Embeddings(tuple(f"G{i}" for i in range(n)), vectors, dims, covered=covered)


def draw(matrix, share, n_factors, seed):
    covariance = share * matrix + (1 - share) * np.eye(len(matrix))
    return np.linalg.cholesky(covariance) @ np.random.default_rng(seed).normal(size=(len(matrix), n_factors))


def simulated_choice(relative_scale, seed, n=60, n_factors=16, share=0.95, power=1.0):
    embeddings = some_embeddings(n, seed=seed)
    far = distances(embeddings.vectors, embeddings.vectors)
    typical = np.median(far[np.triu_indices(n, 1)])
    response = draw(np.exp(-((far / (relative_scale * typical)) ** power)), share, n_factors, seed)
    kernel, *eigen = choose_kernel(embeddings, embeddings.genes, response)
    return kernel.length_scales[0] / typical, explained_variance(response, *eigen)[0], kernel.power


def test_choice_recovers_the_length_scale():
    truths = (0.25, 0.7, 2.0)
    center = np.array([np.median([simulated_choice(truth, seed)[0] for seed in range(3)]) for truth in truths])
    assert center[0] < center[1] < center[2]
    assert (np.abs(np.log(center / truths)) < np.log(1.8)).all()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_choice_recovers_the_power(power):
    found = [simulated_choice(0.7, seed, power=power)[2] for seed in range(3)]
    np.testing.assert_allclose(found, power, atol=0.35)


def test_choice_recovers_the_share():
    assert simulated_choice(0.7, 0, share=0.95)[1].mean() > 0.7
    assert simulated_choice(0.7, 0, share=0.02)[1].mean() < 0.3


@pytest.mark.parametrize("truth", [(1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.34, 0.33, 0.33)])
def test_choice_recovers_the_weights(truth):
    """Of three sources; one of no use has next to no weight."""
    embeddings = some_embeddings(80, (3, 3, 3), seed=2)
    kernel = Kernel(truth, (1.5, 1.5, 1.5), 2.0)
    response = draw(kernel_between(embeddings.genes, embeddings.genes, embeddings, kernel), 0.95, 20, 3)
    found, *_ = choose_kernel(embeddings, embeddings.genes, response)
    np.testing.assert_allclose(found.source_weights, truth, atol=0.15)
    assert sum(found.weights) + found.joint == pytest.approx(1)
    assert all(weight == 0 or weight >= LEAST_WEIGHT for weight in (*found.weights, found.joint))
    pairs = zip((*found.source_weights, 0), (*truth, 0), strict=True)
    assert max(weight for weight, true in pairs if not true) <= 0.05


def test_the_joint_part_is_chosen_where_all_sources_must_agree():
    """Responses of a product of kernels are unlike any sum."""
    embeddings = some_embeddings(80, (3, 3), seed=2)
    genes, halves = embeddings.genes, (0.5, 0.5)
    kernel = Kernel((0.0, 0.0), (1.0, 1.0), 2.0, auxiliary=(1.0, 1.0), joint=1.0, joint_scale=0.6, proportions=halves)
    matrix = kernel_between(genes, genes, embeddings, kernel)
    response = draw(matrix, 0.95, 20, 3)
    found, *_ = choose_kernel(embeddings, genes, response)
    assert found.joint > 0.7
    np.testing.assert_allclose(found.proportions, halves, atol=0.2)


def test_strong_factors_decide():
    """Factors of one source count, and those of another do not, by their weight."""
    embeddings = some_embeddings(80, (3, 3), seed=4)
    responses = [
        draw(
            kernel_between(embeddings.genes, embeddings.genes, embeddings, Kernel(weights, (1.5, 1.5), 2.0)), 0.9, 5, 5
        )
        for weights in ((1.0, 0.0), (0.0, 1.0))
    ]
    response = np.concatenate(responses, axis=1)
    first, second = np.repeat([0.18, 0.02], 5), np.repeat([0.02, 0.18], 5)
    one, other = (
        choose_kernel(embeddings, embeddings.genes, response, weight)[0].source_weights for weight in (first, second)
    )
    assert one[0] > 0.8
    assert other[0] < 0.2


def test_a_source_that_covers_half_of_the_genes():
    """Its weight is found, and covariances of the other half follow the first source."""
    covered = np.ones((80, 2), bool)
    covered[40:, 1] = False
    embeddings = some_embeddings(80, (3, 3), seed=6, covered=covered)
    kernel = Kernel((0.4, 0.6), (1.5, 1.5), 2.0, reference=embeddings.genes, auxiliary=(1.5, 1.5))
    values, vectors = diagonalize(embeddings.genes, embeddings, kernel)
    response = draw((vectors * values) @ vectors.T, 0.95, 20, 7)
    found, *_ = choose_kernel(embeddings, embeddings.genes, response)
    assert found.source_weights[1] == pytest.approx(0.6, abs=0.2)


def test_gradient_of_the_evidence_by_differences():
    rng = np.random.default_rng(0)
    response, weight = rng.normal(size=(12, 4)), np.array([0.6, 0.2, 0.5, 1.1])
    root = rng.normal(size=(12, 12))
    matrix = root @ root.T / 12 + 0.1 * np.eye(12)
    evidence, gradient = kernel_evidence(response, matrix, weight)
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-10)
    eigen = np.linalg.eigh(matrix)
    each = [explained_variance(response[:, [k]], *eigen)[1] for k in range(4)]
    assert 0 <= evidence - weight @ each < 1e-3  # shares are not on a grid
    direction = rng.normal(size=(12, 12))
    direction = (direction + direction.T) * 1e-6
    up, down = (kernel_evidence(response, matrix + sign * direction, weight)[0] for sign in (1, -1))
    assert (gradient * direction).sum() == pytest.approx((up - down) / 2, rel=1e-4)


def test_the_choice_is_a_maximum():
    """Neither weights nor length scales nearby have a greater posterior; also with genes that a source lacks."""
    covered = np.ones((40, 2), bool)
    covered[30:, 1] = False
    embeddings = some_embeddings(40, (3, 3), seed=8, covered=covered)
    pairs = [f"G{i}+G{i + 1}" for i in range(0, 20, 2)]
    labels = [*embeddings.genes, *pairs]
    start = Kernel((0.3, 0.4), (1.5, 1.5), 2.0, 0.3, embeddings.genes, (1.5, 1.5))
    values, vectors = diagonalize(labels, embeddings, start)
    response = draw((vectors * values) @ vectors.T, 0.9, 12, 9)
    best, *_ = choose_kernel(embeddings, labels, response)
    assert best.shared > 0
    typical = np.array(best.auxiliary) / 0.5

    def posterior(weights, scales):
        """With the weights of both sources, the joint part and shared genes, and three length scales."""
        kernel = replace(
            best, weights=tuple(weights[:2]), joint=weights[2], shared=weights[3], length_scales=tuple(scales[:2]),
            joint_scale=scales[2],
        )  # fmt: skip
        values, vectors = diagonalize(labels, embeddings, kernel)
        off = np.log(np.array(scales) / typical / 0.5) / 0.5
        return kernel_evidence(response, (vectors * values) @ vectors.T, np.ones(12))[0] - 0.5 * (off**2).sum()

    points = Points.of(labels, embeddings)
    far = joint_distances(points, points, best)
    typical = np.append(typical, np.median(far[far > 0]))
    weights = np.array([*best.weights, best.joint, best.shared])
    scales = np.array([*best.length_scales, best.joint_scale])
    top = posterior(weights, scales)
    for i in range(4):
        for factor in (0.8, 1.25):
            other = weights * np.where(np.arange(4) == i, factor, 1)
            assert posterior(other / other.sum(), scales) < top + 0.05
            if i < 3 and weights[i]:
                assert posterior(weights, scales * np.where(np.arange(3) == i, factor, 1)) < top + 0.05


def test_choice_returns_the_kernel_of_all_perturbations():
    embeddings = some_embeddings(8)
    perturbations = [*embeddings.genes, "NEW", "NEWER", "G0+G1"]
    response = np.random.default_rng(0).normal(size=(11, 3))
    kernel, eigenvalues, eigenvectors = choose_kernel(embeddings, perturbations, response)
    matrix = eigenvectors @ np.diag(eigenvalues) @ eigenvectors.T
    expected = kernel_between(perturbations, perturbations, embeddings, kernel)
    expected[8, 8] = expected[9, 9] = 1  # related to no other, but a response like any other
    np.testing.assert_allclose(matrix, expected, atol=1e-12)
    assert kernel.reference == (*embeddings.genes, "G0+G1")


def test_embeddings_that_tell_nothing_apart():
    vectors = np.r_[np.ones((3, 2)), [[0.0, 1.0]]].astype(np.float32)
    same = Embeddings(("A", "B", "C", "D"), vectors, (2,))
    with pytest.raises(ValueError, match="same embedding"):
        choose_kernel(same, ["A", "B", "C"], np.zeros((3, 1)))
    # Some equal ones do no harm.
    kernel, *_ = choose_kernel(same, ["A", "B", "C", "D"], np.eye(4)[:, :2])
    assert kernel.length_scales[0] > 0


def test_a_source_of_too_few_perturbations_is_left_out():
    covered = np.ones((10, 2), bool)
    covered[2:, 1] = False
    embeddings = some_embeddings(10, (2, 2), covered=covered)
    kernel, *_ = choose_kernel(embeddings, embeddings.genes, np.random.default_rng(0).normal(size=(10, 3)))
    assert kernel.weights == (1.0, 0.0)


def test_a_pair_that_no_source_covers():
    """Each source has one of its genes: it depends on no other label, and does no harm."""
    covered = np.ones((12, 2), bool)
    covered[0, 0] = covered[1, 1] = False
    embeddings = some_embeddings(12, (2, 2), covered=covered)
    labels = [*embeddings.genes, "G0+G1"]
    kernel, values, vectors = choose_kernel(embeddings, labels, np.random.default_rng(0).normal(size=(13, 3)))
    matrix = (vectors * values) @ vectors.T
    assert np.isfinite(matrix).all()
    shared = kernel.shared / np.sqrt(2)
    joint = parts_between(labels, labels, embeddings, kernel).get("all at once", np.zeros((13, 13)))
    np.testing.assert_allclose(matrix[12, :12] - joint[12, :12], [shared, shared, *[0] * 10], atol=1e-9)


def test_of_many_perturbations_some_decide():
    embeddings = some_embeddings(MOST_LABELS + 40, (2,))
    response = np.random.default_rng(0).normal(size=(MOST_LABELS + 40, 2))
    kernel, eigenvalues, _ = choose_kernel(embeddings, embeddings.genes, response)
    assert len(eigenvalues) == MOST_LABELS + 40
    assert len(kernel.reference) == MOST_LABELS + 40


@pytest.mark.parametrize("truth", [0.0, 0.6])
def test_choice_of_the_weight_of_shared_genes(truth):
    rng = np.random.default_rng(3)
    embeddings = some_embeddings(40, (8,))
    pairs = rng.choice(40, (60, 2))
    labels = [*embeddings.genes, *sorted({f"G{min(a, b)}+G{max(a, b)}" for a, b in pairs if a != b})]
    far = distances(embeddings.of(labels), embeddings.of(labels))
    kernel = Kernel((1 - truth,), (0.7 * np.median(far[far > 0]),), 2.0, truth)
    response = draw(kernel_between(labels, labels, embeddings, kernel), 0.9, 12, 3)
    chosen, *_ = choose_kernel(embeddings, labels, response)
    assert abs(chosen.shared - truth) <= 0.15
    assert chosen.length_scales[0] == pytest.approx(kernel.length_scales[0], rel=0.45)


def test_genes_that_no_two_labels_share_have_no_weight():
    embeddings = some_embeddings(12)
    # G0 is shared with a label that has no embedding, which tells nothing of others.
    labels = [*embeddings.genes[:8], "G8+G9", "G10+G11", "G0+NEW"]
    assert choose_kernel(embeddings, labels, np.random.default_rng(0).normal(size=(11, 3)))[0].shared == 0
