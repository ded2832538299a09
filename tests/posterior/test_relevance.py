"""What sources predict, against the Gaussian process by hand with dense matrices."""

from dataclasses import replace

import numpy as np
import pytest

from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import explained_variance, leave_one_out
from distpert.model.kernel_choice import choose_kernel, diagonalize
from distpert.model.kernels import Kernel, kernel_between, parts_between
from distpert.posterior.relevance import LatentResponses, explain, relevance, told_by_source

SHARE = np.array([0.9, 0.5])
WEIGHT = np.array([0.7, 0.3])
N = 30
LABELS = tuple(f"G{i}" for i in range(N))


@pytest.fixture(scope="module")
def problem():
    """Responses that follow the first of two sources; the second lacks the last genes. Three genes are unseen."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N + 3, 4)).astype(np.float32)
    covered = np.ones((N + 3, 2), bool)
    covered[N - 5 :, 1] = False
    vectors[:, 2:] *= covered[:, 1:]
    genes = (*LABELS, "NEW0", "NEW1", "NEW2")
    embeddings = Embeddings(genes, vectors, (2, 2), ("text", "go"), covered)
    kernel = Kernel((0.8, 0.2), (1.2, 1.5), 2.0, reference=LABELS, auxiliary=(1.0, 1.0))
    values, basis = diagonalize(LABELS, embeddings, kernel)
    matrix = (basis * values) @ basis.T
    roots = [np.linalg.cholesky(rho * matrix + (1 - rho) * np.eye(N)) for rho in SHARE]
    response = np.stack([root @ rng.normal(size=N) for root in roots], axis=1)
    return LatentResponses(LABELS, response, WEIGHT, SHARE), embeddings, kernel, matrix


def test_relevance_of_each_source(problem):
    responses, embeddings, kernel, matrix = problem
    table = relevance(responses, embeddings, kernel, 0.9)
    assert table.index.tolist() == ["text", "go", "all sources"]
    assert table["weight"].tolist() == [0.8, 0.2, 1.0]
    assert table["n_perturbations"].tolist() == [30, 25, 30]
    assert table["n_genes"].tolist() == [33, 25, 33]
    predicted, _ = leave_one_out(SHARE, *np.linalg.eigh(matrix), responses.response)
    errors = (responses.response - predicted) ** 2 @ WEIGHT
    assert table.loc["all sources", "r2"] == pytest.approx(1 - errors.sum() / (responses.response**2 @ WEIGHT).sum())
    assert (table["r2_lower"] < table["r2"]).all()
    assert (table["r2"] < table["r2_upper"]).all()
    assert table.loc["text", "r2"] > table.loc["go", "r2"] + 0.2


def test_interval_of_r2_is_that_of_resampled_perturbations(problem):
    responses, embeddings, kernel, matrix = problem
    predicted, _ = leave_one_out(SHARE, *np.linalg.eigh(matrix), responses.response)
    errors, size = (values**2 @ WEIGHT for values in (responses.response - predicted, responses.response))
    rng = np.random.default_rng(7)
    drawn = [1 - errors[rows].sum() / size[rows].sum() for rows in rng.integers(N, size=(4000, N))]
    row = relevance(responses, embeddings, kernel, 0.9).loc["all sources"]
    np.testing.assert_allclose([row["r2_lower"], row["r2_upper"]], np.quantile(drawn, [0.05, 0.95]), atol=0.03)


def test_a_source_alone_has_a_kernel_of_its_own(problem):
    responses, embeddings, kernel, _ = problem
    _, *eigen = choose_kernel(embeddings.source("text"), LABELS, responses.response, WEIGHT)
    share, _ = explained_variance(responses.response, *eigen)
    predicted, _ = leave_one_out(share, *eigen, responses.response)
    errors = (responses.response - predicted) ** 2 @ WEIGHT
    row = relevance(responses, embeddings, kernel, 0.9).loc["text"]
    assert row["r2"] == pytest.approx(1 - errors.sum() / (responses.response**2 @ WEIGHT).sum())


def test_a_source_of_equal_vectors_predicts_nothing(problem):
    responses, embeddings, kernel, _ = problem
    vectors = embeddings.vectors.copy()
    vectors[:, 2:] = 1
    same = Embeddings(embeddings.genes, vectors, (2, 2), ("text", "go"))
    row = relevance(responses, same, kernel, 0.9).loc["go"]
    assert (row["r2"], row["r2_lower"], row["r2_upper"]) == (0, 0, 0)


def test_shared_genes_have_a_row(problem):
    responses, embeddings, kernel, _ = problem
    mixed = replace(kernel, weights=(0.5, 0.2), shared=0.3)
    table = relevance(responses, embeddings, mixed, 0.9)
    assert table.loc["shared genes", "weight"] == 0.3
    assert np.isnan(table.loc["shared genes", "r2"])


@pytest.mark.parametrize("label", ["NEW0", "G4", "G28"])
def test_neighbors_are_those_of_the_prediction(problem, label):
    """Weights of the Gaussian process, averaged over factors; of a training perturbation without itself."""
    responses, embeddings, kernel, matrix = problem
    others = [j for j, other in enumerate(LABELS) if other != label]
    if label in LABELS:
        cross = matrix[LABELS.index(label), others]
    else:
        cross = kernel_between([label], LABELS, embeddings, kernel)[0]
    within = matrix[np.ix_(others, others)]
    weights = sum(
        w * rho * np.linalg.solve(rho * within + (1 - rho) * np.eye(len(others)), cross)
        for w, rho in zip(WEIGHT, SHARE, strict=True)
    )
    table = explain([label], responses, embeddings, kernel, 4)
    order = np.argsort(-np.abs(weights))[:4]
    assert table["neighbor"].tolist() == [LABELS[others[j]] for j in order]
    np.testing.assert_allclose(table["weight"], weights[order], rtol=1e-6)
    np.testing.assert_allclose(table["kernel"], cross[order], rtol=1e-9)
    parts = parts_between([label], LABELS, embeddings, kernel)
    for _, row in table.iterrows():
        j = LABELS.index(row["neighbor"])
        assert row["source"] == max(parts, key=lambda name: parts[name][0, j])


@pytest.mark.parametrize("label", ["NEW0", "G4", "G28"])
def test_what_sources_tell_adds_up(problem, label):
    responses, embeddings, kernel, matrix = problem
    found = told_by_source([label], responses, embeddings, kernel)
    others = [j for j, other in enumerate(LABELS) if other != label]
    parts = {name: part[0, others] for name, part in parts_between([label], LABELS, embeddings, kernel).items()}
    cross, within = sum(parts.values()), matrix[np.ix_(others, others)]
    for name, part in parts.items():
        expected = sum(
            w * rho**2 * cross @ np.linalg.solve(rho * within + (1 - rho) * np.eye(len(others)), part)
            for w, rho in zip(WEIGHT, SHARE, strict=True)
        )
        assert found[name][0] == pytest.approx(expected)
    total = sum(values[0] for values in found.values())
    assert 0 < total < 1


def test_of_a_fit(fitted, unseen):
    labels = [*unseen[:3], *fitted.perturbations[:2]]
    parts = fitted.told_by_source(labels)
    assert list(parts) == list(fitted.embeddings.source_names)
    np.testing.assert_allclose(sum(parts.values()), fitted.told(labels), atol=1e-4)
    table = fitted.relevance
    assert table.loc["all sources", "r2"] == pytest.approx(fitted.left_out_r2()["single genes"], abs=1e-3)
    assert fitted.explain(labels, n_neighbors=2)["perturbation"].tolist() == np.repeat(labels, 2).tolist()
