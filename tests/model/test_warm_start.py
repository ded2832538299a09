"""The start of the optimization: factors of a screen without noise, and the explained share by brute force."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import halfnorm, norm

from distpert.model import warm_start
from distpert.model.design import on_target_tilts
from distpert.model.warm_start import SHRINK_CELLS, factorize, learn_tilts

N_PERTURBATIONS, N_FACTORS, N_GENES, N_BINS = 20, 3, 10, 7
ENORMOUS = 1e12


def low_rank_screen(n_contexts=1, size=0.01, seed=0):
    """Expected counts of enormous samples, whose log-ratios are small enough for their normalization not to matter."""
    rng = np.random.default_rng(seed)
    control = rng.dirichlet(np.full(N_BINS, 4.0), size=(n_contexts, N_GENES))
    common = rng.normal(size=(N_GENES, N_BINS)) * 0.5
    response = rng.normal(size=(N_PERTURBATIONS, N_FACTORS))
    response -= response.mean(axis=0)
    loading = rng.normal(size=(N_FACTORS, N_GENES, N_BINS)) * size
    # So that a shift leaves the sum of probabilities as it is, to first order.
    base = softmax(np.log(control) + common, axis=-1).mean(axis=0)
    loading -= (loading * base).sum(axis=-1, keepdims=True)
    perturbation = np.repeat(np.arange(N_PERTURBATIONS), n_contexts)
    context = np.tile(np.arange(n_contexts), N_PERTURBATIONS)
    shift = np.tensordot(response, loading, axes=1)
    probs = softmax(np.log(control)[context] + common + shift[perturbation], axis=-1)
    n_cells = rng.uniform(0.5, 2, len(context)) * ENORMOUS
    counts = probs * n_cells[:, None, None]
    return {
        "counts": counts,
        "n_cells": n_cells,
        "perturbation": perturbation,
        "context": context,
        "control": control,
    }, {"common": common, "response": response, "loading": loading, "probs": probs}


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_factors_of_a_low_rank_screen(n_contexts):
    screen, truth = low_rank_screen(n_contexts)
    common, loading, response = factorize(**screen, n_factors=N_FACTORS)
    assert common.shape == (n_contexts, N_GENES, N_BINS)
    assert loading.shape == (N_FACTORS, N_GENES, N_BINS)
    assert response.shape == (N_PERTURBATIONS, N_FACTORS)
    assert common.dtype == loading.dtype == response.dtype == np.float32
    # The same responses, up to a rotation of factors.
    assert np.cos(subspace_angles(response, truth["response"])).min() > 0.999
    np.testing.assert_allclose(response.T @ response / N_PERTURBATIONS, np.eye(N_FACTORS), atol=1e-4)
    # And together they give back the histograms that were put in, to second order of the shifts.
    logits = np.log(screen["control"])[screen["context"]] + common[screen["context"]]
    logits = logits + np.tensordot(response, loading, axes=1)[screen["perturbation"]]
    np.testing.assert_allclose(softmax(logits, axis=-1), truth["probs"], rtol=5e-3 if n_contexts == 1 else 3e-2)
    plain = np.log(truth["probs"]) - np.log(screen["control"])[screen["context"]] - common[screen["context"]]
    left = plain - np.tensordot(response, loading, axes=1)[screen["perturbation"]]
    assert left.std() < (0.1 if n_contexts == 1 else 0.5) * plain.std()


def test_factors_are_in_order_of_what_they_explain():
    screen, _ = low_rank_screen(size=0.03)
    _, loading, _ = factorize(**screen, n_factors=6)
    weight = np.sqrt(screen["control"].mean(axis=0))
    norms = np.linalg.norm((loading * weight).reshape(6, -1), axis=1)
    assert (np.diff(norms[:3]) < 0).all()
    assert norms[3:].max() < 0.2 * norms[:3].min()
    _, fewer, _ = factorize(**screen, n_factors=2)
    np.testing.assert_allclose(fewer, loading[:2], atol=1e-6)


def test_common_shift_of_perturbations_that_all_do_the_same():
    screen, truth = low_rank_screen(size=0.0)
    common, loading, _ = factorize(**screen, n_factors=2)
    np.testing.assert_allclose(softmax(np.log(screen["control"][0]) + common[0], axis=-1), truth["probs"][0], rtol=1e-5)
    np.testing.assert_allclose(loading, 0, atol=1e-5)


def test_few_cells_are_shrunk():
    """One perturbation of a handful of cells, by loop: its log-ratio is that of n + S base over N + S."""
    rng = np.random.default_rng(0)
    control = rng.dirichlet(np.full(4, 3.0), size=(1, 2))
    n_cells = np.array([5, 40, 300])
    counts = np.stack([rng.multinomial(n, control[0]) for n in n_cells])
    common, loading, response = factorize(counts, n_cells, np.arange(3), np.zeros(3, int), control, n_factors=2)
    total = counts.sum(axis=0)
    first = np.log((total + SHRINK_CELLS * control[0]) / ((345 + SHRINK_CELLS) * control[0]))
    base = control[0] * np.exp(first)
    ratios = np.zeros((3, 2, 4))
    for p in range(3):
        for g in range(2):
            for b in range(4):
                shrunk = (counts[p, g, b] + SHRINK_CELLS * base[g, b]) / (n_cells[p] + SHRINK_CELLS)
                ratios[p, g, b] = np.log(shrunk / base[g, b])
    np.testing.assert_allclose(common[0], first + ratios.mean(axis=0), atol=1e-5)
    # Centered ratios of three perturbations have rank two.
    np.testing.assert_allclose(np.tensordot(response, loading, axes=1), ratios - ratios.mean(axis=0), atol=1e-5)


def test_tilts_of_many_cells_are_recovered():
    rng = np.random.default_rng(3)
    control = rng.dirichlet(np.full(15, 2.0), size=(2, 4))  # two contexts, four genes
    common = rng.normal(scale=0.2, size=(2, 4, 15))
    tilts = on_target_tilts(control)
    truth = np.array([[-1.5, 0.2], [-0.5, -0.3], [2.0, 0.1]])
    targets = np.array([[0, 4], [1, 2], [4, 4]])  # one gene, two genes, none measured
    perturbation, context = np.repeat(np.arange(3), 2), np.tile([0, 1], 3)
    counts = np.empty((6, 4, 15))
    for group, (p, c) in enumerate(zip(perturbation, context, strict=True)):
        logits = np.log(control[c]) + common[c]
        for gene in targets[p][targets[p] < 4]:
            logits[gene] += truth[p] @ tilts[c, gene]
        counts[group] = 1e7 * softmax(logits, axis=-1)
    found = learn_tilts(counts, np.full(6, 1e7), perturbation, context, control, common, tilts, targets)
    np.testing.assert_allclose(found.on_target[:2], truth[:2], atol=1e-3)
    assert (found.on_target_scale[:2] < 5e-3).all()

    def loss(mean_scale):
        """Of the distribution given the tilts, with its priors and one more tilt at a distance of 1."""
        mean, scale = mean_scale
        likelihood = norm.logpdf(tilt, mean, scale).sum() + norm.logpdf(1, 0, scale)
        return -likelihood - norm.logpdf(mean, 0, 2) - halfnorm.logpdf(scale, 0, 2)

    for j, tilt in enumerate(truth[:2].T):
        best = minimize(loss, [tilt.mean(), 1.0], bounds=[(None, None), (1e-3, None)], tol=1e-12).x
        np.testing.assert_allclose([found.mean[j], found.scale[j]], best, atol=2e-3)
    # Nothing is known of the third.
    np.testing.assert_allclose(found.on_target[2], found.mean, rtol=1e-3)
    np.testing.assert_allclose(found.on_target_scale[2], found.scale, rtol=1e-3)


@pytest.mark.parametrize("n_cells", [3, 100])
def test_tilts_have_the_greatest_posterior_density(n_cells):
    """Against a general optimizer; few cells, of which all may be in one bin, too."""
    rng = np.random.default_rng(n_cells)
    control = rng.dirichlet(np.full(6, 0.5), size=(1, 12))
    common, tilts = np.zeros((1, 12, 6)), on_target_tilts(control)
    truth = rng.normal([-2, 0.5], [0.8, 0.4], size=(12, 2))
    probs = softmax(np.log(control[0]) + np.einsum("pj,pjb->pb", truth, tilts[0]), axis=-1)
    counts = np.zeros((12, 12, 6), int)
    counts[np.arange(12), np.arange(12)] = rng.multinomial(n_cells, probs)
    arguments = (np.full(12, n_cells), np.arange(12), np.zeros(12, int), control, common, tilts, np.arange(12)[:, None])
    found = learn_tilts(counts, *arguments)

    for p in range(12):

        def loss(tilt, p=p):
            likelihood = counts[p, p] @ log_softmax(np.log(control[0, p]) + tilt @ tilts[0, p])
            return ((tilt - found.mean) ** 2 / found.scale**2).sum() / 2 - likelihood

        best = minimize(loss, np.zeros(2), tol=1e-10).x
        np.testing.assert_allclose(found.on_target[p], best, atol=1e-3)
        a, b = 1e-3 * np.eye(2)
        first, second = (loss(best + step) - 2 * loss(best) + loss(best - step) for step in (a, b))
        mixed = (loss(best + a + b) - loss(best + a - b) - loss(best - a + b) + loss(best - a - b)) / 4
        curvature = np.array([[first, mixed], [mixed, second]]) / 1e-6
        deviation = np.sqrt(np.diag(np.linalg.inv(curvature)))
        np.testing.assert_allclose(found.on_target_scale[p], deviation, rtol=1e-3)


def screen_of_targets(n_cells, *, seed=0, n_perturbations=300, mean=(-1.5, 0.5), scale=(0.6, 0.3), zeros=0.0):
    """Each perturbation has a gene, and all share the distribution of tilts; arguments of `learn_tilts`."""
    rng = np.random.default_rng(seed)
    control = rng.dirichlet(np.full(8, 2.0), size=(1, n_perturbations))
    control[..., 0] += zeros
    control /= control.sum(axis=-1, keepdims=True)
    tilts, index = on_target_tilts(control), np.arange(n_perturbations)
    truth = rng.normal(mean, scale, size=(n_perturbations, 2))
    probs = softmax(np.log(control[0]) + np.einsum("pj,pjb->pb", truth, tilts[0]), axis=-1)
    counts = np.zeros((n_perturbations, n_perturbations, 8), np.uint16)
    counts[index, index] = rng.multinomial(n_cells, probs)
    cells = np.full(n_perturbations, n_cells)
    return counts, cells, index, 0 * index, control, np.zeros(control.shape), tilts, index[:, None]


def test_distribution_of_tilts_is_recovered():
    found = learn_tilts(*screen_of_targets(200))
    np.testing.assert_allclose(found.mean, [-1.5, 0.5], atol=0.15)
    np.testing.assert_allclose(found.scale, [0.6, 0.3], rtol=0.2)


@pytest.mark.parametrize("screen", [{"n_cells": 100, "zeros": 2.0}, {"n_cells": 5}])
def test_tilts_have_settled(screen, monkeypatch):
    """Also where cells tell little, which makes the algorithm slow."""
    arguments = screen_of_targets(**screen, n_perturbations=60)
    found = learn_tilts(*arguments)
    monkeypatch.setattr("distpert.model.warm_start.TILT_STEPS", 20_000)
    monkeypatch.setattr("distpert.model.warm_start.TILT_SETTLED", 1e-9)
    further = learn_tilts(*arguments)
    np.testing.assert_allclose(found.mean, further.mean, atol=0.02)
    np.testing.assert_allclose(found.scale, further.scale, atol=0.02)


def test_tilts_of_complete_knock_outs_are_finite():
    """All cells of each in the lowest bin: the likelihood alone has no maximum."""
    arguments = screen_of_targets(50, n_perturbations=20)
    counts = np.zeros_like(arguments[0])
    counts[..., 0] = 50
    found = learn_tilts(counts, *arguments[1:])
    for values in found:
        assert np.isfinite(values).all()
    tilts, control = arguments[6], arguments[4]
    shifted = softmax(np.log(control[0]) + np.einsum("j,gjb->gb", found.mean, tilts[0]), axis=-1)
    assert (shifted[:, 0] > 0.9).all()


def test_tilts_without_a_measured_target():
    control = np.full((1, 2, 5), 0.2)
    arguments = (np.full((3, 2, 5), 4), np.full(3, 20), np.arange(3), np.zeros(3, int), control, np.zeros((1, 2, 5)))
    found = learn_tilts(*arguments, on_target_tilts(control), np.full((3, 1), 2))
    scale = np.sqrt(2 * (np.sqrt(2) - 1))  # of one tilt at a distance of 1, given the prior
    for values, expected in zip(found, (0, scale, 0, scale), strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-3)


def test_blocks_of_genes_change_nothing(monkeypatch):
    screen, *_ = low_rank_screen()
    whole = factorize(**screen, n_factors=N_FACTORS)
    monkeypatch.setattr(warm_start, "BLOCK_VALUES", 1)  # one gene at a time
    for one, other in zip(factorize(**screen, n_factors=N_FACTORS), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
