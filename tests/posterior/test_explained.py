"""What embeddings tell about responses: against Gaussian processes without the rows that are left out."""

import numpy as np
import pytest

from distpert.embeddings.vectors import Embeddings
from distpert.model.kernel_choice import choose_kernel
from distpert.model.kernels import Kernel, kernel_between, typical_distance
from distpert.posterior import explained
from distpert.posterior.explained import draw_explained_share, left_out_r2

LABELS = ("A", "B", "C", "D", "E", "A+B", "A+C", "D+F")


def some_embeddings(n, dims=2, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)
    return Embeddings(tuple(f"G{i}" for i in range(n)), vectors, (dims,))


@pytest.fixture(scope="module")
def process():
    rng = np.random.default_rng(1)
    embeddings = Embeddings(tuple("ABCDEF"), rng.normal(size=(6, 2)).astype(np.float32), (2,))
    matrix = kernel_between(LABELS, LABELS, embeddings, Kernel((0.6,), (1.5,), 1.0, 0.4))
    share, weight = np.array([0.3, 0.6, 0.95]), np.array([0.5, 0.3, 0.2])
    roots = [np.linalg.cholesky(rho * matrix + (1 - rho) * np.eye(8)) for rho in share]
    response = np.stack([root @ rng.normal(size=8) for root in roots], axis=1)
    return response, share, matrix, weight


def predict_without(share, matrix, response, point, left_out):
    """Prediction of one response from the rows that are not left out."""
    others = [j for j in range(len(matrix)) if j not in left_out]
    predicted = []
    for k, rho in enumerate(share):
        covariance = rho * matrix[np.ix_(others, others)] + (1 - rho) * np.eye(len(others))
        predicted.append(rho * matrix[point, others] @ np.linalg.solve(covariance, response[others, k]))
    return np.array(predicted)


def r2(response, weight, predicted):
    """Of weighted squares about zero, which is the mean of responses."""
    error = sum(weight @ (response[p] - value) ** 2 for p, value in predicted.items())
    return 1 - error / sum(weight @ response[p] ** 2 for p in predicted)


def test_r2_by_deletion_of_rows(process):
    response, share, matrix, weight = process
    found = left_out_r2(response, share, *np.linalg.eigh(matrix), weight, LABELS)
    # By hand: a single gene is left out with the pairs that it is part of, a pair by itself.
    without = {0: [0, 5, 6], 1: [1, 5], 2: [2, 6], 3: [3, 7], 4: [4], 5: [5], 6: [6], 7: [7]}
    predicted = {p: predict_without(share, matrix, response, p, rows) for p, rows in without.items()}
    singles = {p: predicted[p] for p in range(5)}
    pairs = {p: predicted[p] for p in (5, 6, 7)}
    assert found.keys() == {"single genes", "pairs"}
    assert found["single genes"] == pytest.approx(r2(response, weight, singles), abs=1e-9)
    assert found["pairs"] == pytest.approx(r2(response, weight, pairs), abs=1e-9)
    # Leaving out a gene alone would be another number.
    alone = {p: predict_without(share, matrix, response, p, [p]) for p in range(5)}
    assert abs(found["single genes"] - r2(response, weight, alone)) > 1e-3


def test_r2_of_single_genes_alone(process):
    response, share, matrix, weight = process
    part = np.ix_(range(5), range(5))
    found = left_out_r2(response[:5], share, *np.linalg.eigh(matrix[part]), weight, LABELS[:5])
    predicted = {p: predict_without(share, matrix[part], response[:5], p, [p]) for p in range(5)}
    assert found == {"single genes": pytest.approx(r2(response[:5], weight, predicted), abs=1e-9)}


def test_r2_where_nothing_is_told(process):
    """Nothing is predicted but the mean of all, which is zero."""
    response, _, matrix, weight = process
    assert left_out_r2(response, np.zeros(3), *np.linalg.eigh(matrix), weight, LABELS) == {
        "single genes": pytest.approx(0, abs=1e-12),
        "pairs": pytest.approx(0, abs=1e-12),
    }


def test_r2_of_a_fit(context_fit):
    """In units of tempered responses, about the response that shifts nothing."""
    learned, response = context_fit.unseen, context_fit.parameters["response"].to_numpy().astype(float)
    tempered = (response - learned.origin) / (learned.length[:, None] * learned.size) - learned.center
    vectors, values = (
        context_fit.parameters[name].to_numpy().astype(float) for name in ("eigenvectors", "eigenvalues")
    )
    matrix = (vectors * values) @ vectors.T
    weight = context_fit.factor_weight * learned.size**2
    predicted = {p: predict_without(learned.share, matrix, tempered, p, [p]) for p in range(10)}
    assert context_fit.left_out_r2() == {"single genes": pytest.approx(r2(tempered, weight, predicted), abs=1e-4)}


def simulated_shares(truth, seed=0, n=60, kernel=(0.7, 2.0), noise=0.0, prior=(1.0, 1.0)):
    """Draws of the mean share of factors with known ones (factor,), seen through noise of this variance."""
    embeddings, rng = some_embeddings(n, seed=seed), np.random.default_rng(seed)
    kernel = Kernel((1.0,), (kernel[0] * typical_distance(embeddings.vectors),), kernel[1])
    matrix = kernel_between(embeddings.genes, embeddings.genes, embeddings, kernel)
    roots = [np.linalg.cholesky(rho * matrix + (1 - rho) * np.eye(n)) for rho in truth]
    seen = np.stack([root @ rng.normal(size=n) for root in roots], axis=1)
    seen += np.sqrt(noise) * rng.normal(size=seen.shape)
    scale = np.full(seen.shape, np.sqrt(noise / (1 + noise)))  # posterior under a prior of variance one
    weight = np.full(len(truth), 1 / len(truth))
    mean = seen * (1 - scale**2)
    return draw_explained_share(mean, scale, weight, embeddings.genes, embeddings, kernel, prior)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_share_of_simulated_responses_is_found(noise):
    """As nearly as 60 perturbations tell it; the prior draws it towards one half."""
    low, middle, high = (
        np.mean([simulated_shares([truth] * 4, seed, noise=noise).mean() for seed in range(2)])
        for truth in (0.1, 0.5, 0.9)
    )
    assert low < 0.35
    assert middle == pytest.approx(0.5, abs=0.15)
    assert high > 0.7


def test_noise_that_is_not_told_of_would_look_like_a_smaller_share():
    """The same sights, with the noise told and not."""
    told = simulated_shares([0.95] * 4, 1, noise=1.0).mean()
    embeddings, rng = some_embeddings(60, seed=1), np.random.default_rng(1)
    kernel = Kernel((1.0,), (0.7 * typical_distance(embeddings.vectors),), 2.0)
    matrix = kernel_between(embeddings.genes, embeddings.genes, embeddings, kernel)
    root = np.linalg.cholesky(0.95 * matrix + 0.05 * np.eye(60))
    seen = np.stack([root @ rng.normal(size=60) for _ in range(4)], axis=1) + rng.normal(size=(60, 4))
    options = np.full(4, 0.25), embeddings.genes, embeddings, kernel, (1.0, 1.0)
    assert draw_explained_share(seen, 0 * seen, *options).mean() < told - 0.15


def test_intervals_of_the_share_hold_the_truth():
    """Shares and kernels from their priors: intervals of 80 % hold about so many, and are narrower than the prior."""
    rng = np.random.default_rng(0)
    held, widths = [], []
    for seed in range(30):
        truth = rng.uniform(size=2)
        kernel = float(rng.choice([0.25, 0.5, 1.0, 2.0])), float(rng.choice([1.0, 2.0]))
        low, high = np.quantile(simulated_shares(truth, 100 + seed, n=30, kernel=kernel), [0.1, 0.9])
        held.append(low <= truth.mean() <= high)
        widths.append(high - low)
    assert 18 <= sum(held) <= 29  # 24 are expected
    prior = np.quantile(rng.uniform(size=(9999, 2)).mean(axis=1), [0.1, 0.9])
    assert np.median(widths) < 0.9 * np.diff(prior)


def test_few_responses_leave_the_prior():
    """Three perturbations tell next to nothing, and the share has its Beta prior."""
    shares = simulated_shares([0.5], n=4, prior=(8.0, 2.0))
    assert shares.mean() == pytest.approx(0.8, abs=0.06)
    assert shares.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 11), abs=0.04)


@pytest.fixture(scope="module")
def unlike():
    """Responses in two factors, of which one follows the embeddings; without noise."""
    embeddings, rng = some_embeddings(60), np.random.default_rng(3)
    kernel = Kernel((1.0,), (0.7 * typical_distance(embeddings.vectors),), 2.0)
    matrix = kernel_between(embeddings.genes, embeddings.genes, embeddings, kernel)
    roots = [np.linalg.cholesky(rho * matrix + (1 - rho) * np.eye(60)) for rho in (0.05, 0.95)]
    response = np.stack([root @ rng.normal(size=60) for root in roots], axis=1)

    def shares(*weight, chosen=(0, 1)):
        part = response[:, list(chosen)]
        known = part, 0 * part, np.array(weight)
        return draw_explained_share(*known, embeddings.genes, embeddings, kernel, (1.0, 1.0))

    return shares


def test_shares_of_factors_are_averaged_by_their_weights(unlike):
    first, second, both = unlike(0.9, 0.1), unlike(0.1, 0.9), unlike(0.5, 0.5)
    assert first.mean() < both.mean() - 0.1 < second.mean() - 0.2
    np.testing.assert_allclose(both, (first + second) / 2)


def test_factors_of_hardly_any_weight_are_left_out(unlike):
    np.testing.assert_array_equal(unlike(0.985, 0.015), unlike(1.0, chosen=[0]))
    assert not np.allclose(unlike(0.97, 0.03), unlike(1.0, chosen=[0]))


def test_interval_of_a_fit(fitted):
    low, median, high = fitted.explained_share_interval()
    assert 0 < low < median < high < 1
    assert fitted.explained_share == median
    wide = fitted.explained_share_interval(0.99)
    assert wide[0] < low and high < wide[2]
    assert wide[1] == median
    assert low < 0.99 and median > 0.7  # the truth is 0.99
    with pytest.raises(ValueError, match="ci_prob must lie between 0 and 1"):
        fitted.explained_share_interval(1.5)


def test_many_perturbations_are_sampled(monkeypatch):
    """With more than the most, some of them decide, and the share is found again."""
    rng = np.random.default_rng(5)
    embeddings = some_embeddings(120, seed=6)
    labels = embeddings.genes
    kernel, eigenvalues, eigenvectors = choose_kernel(embeddings, labels, rng.normal(size=(120, 3)))
    drawn = eigenvectors @ (np.sqrt(0.9 * eigenvalues + 0.1)[:, None] * rng.normal(size=(120, 3)))
    arguments = drawn, np.full_like(drawn, 0.05), np.full(3, 1 / 3), labels, embeddings, kernel, (1.0, 1.0)
    whole = draw_explained_share(*arguments)
    monkeypatch.setattr(explained, "MOST_LABELS", 60)
    some = draw_explained_share(*arguments)
    assert abs(np.median(some) - np.median(whole)) < 0.3
    assert some.std() > 0.5 * whole.std()
