"""Noise of responses from programs of genes, against draws of groups; its effect on posteriors, in closed form."""

import numpy as np
import pytest

from distpert.posterior.program_noise import program_noise, widen

N_GENES, N_BINS, N_FACTORS = 40, 4, 2


def cells(rng, n_cells, program):
    """Bins (cell, gene) of cells whose genes follow a program with this loading, and are else independent."""
    score = rng.standard_normal((n_cells, 1)) * program + rng.standard_normal((n_cells, N_GENES))
    return np.digitize(score / np.sqrt(1 + program**2), [-0.8, 0.2, 1.0])


def count(bins):
    return (bins[..., None] == np.arange(N_BINS)).sum(axis=-3)


def setting(program, seed=0, n_parts=128, part_cells=20):
    """Parts of controls, loadings along the bins and across genes, and the control histograms."""
    rng = np.random.default_rng(seed)
    parts = np.stack([count(cells(rng, part_cells, program)) for _ in range(n_parts)])
    control = (parts.sum(axis=0) / parts.sum(axis=0).sum(axis=-1, keepdims=True))[None]
    signs = np.stack([np.ones(N_GENES), np.tile([1.0, -1.0], N_GENES // 2)])
    loading = 0.3 * signs[:, :, None] * (np.arange(N_BINS) - 1.5)
    return rng, parts, control, loading


def noise_of(parts, control, loading, n_cells, context=None):
    n_parts = len(parts)
    context = np.zeros(n_parts, int) if context is None else context
    return program_noise(parts, parts[:, 0].sum(axis=-1), context, loading, control, np.array([n_cells]))[0]


def responses(counts, control, loading):
    """One step of Fisher scoring from zero, with the prior of variance one."""
    n = counts[0].sum()
    centered = loading - (loading * control[0]).sum(axis=-1, keepdims=True)
    information = np.einsum("kgb,lgb,gb->kl", centered, centered, control[0])
    return np.linalg.solve(n * information + np.eye(N_FACTORS), (centered * (counts - n * control[0])).sum(axis=(1, 2)))


def test_noise_is_what_groups_of_cells_show():
    """A program along the first factor. The second, against its grain, has less noise than independent genes."""
    program, n_cells = 0.5, 60
    rng, parts, control, loading = setting(program, n_parts=3000)
    with_program = np.stack(
        [responses(count(cells(rng, n_cells, program)), control, loading) for _ in range(2000)]
    ).var(axis=0)
    independent = np.stack([responses(count(cells(rng, n_cells, 0.0)), control, loading) for _ in range(2000)]).var(
        axis=0
    )
    found = noise_of(parts, control, loading, n_cells)
    assert with_program[0] > 5 * independent[0]
    assert found[0] == pytest.approx(with_program[0] - independent[0], rel=0.15)
    assert found[1] == 0


def test_independent_genes_add_next_to_nothing():
    _, parts, control, loading = setting(0.0)
    information = np.einsum("kgb,kgb,gb->k", loading, loading, control[0])
    assert (noise_of(parts, control, loading, 60) < 0.5 / (60 * information)).all()


def test_noise_falls_with_the_number_of_cells():
    _, parts, control, loading = setting(0.5)
    some, many = (noise_of(parts, control, loading, n)[0] for n in (100, 1000))
    assert many == pytest.approx(some / 10, rel=0.05)


def test_differences_between_contexts_are_no_noise():
    _, parts, control, loading = setting(0.0)
    other = parts[:, :, ::-1]  # another context, where all histograms are mirrored
    both, context = np.concatenate([parts, other]), np.repeat([0, 1], len(parts))
    controls = np.concatenate([control, control[:, :, ::-1]])
    information = np.einsum("kgb,kgb,gb->k", loading, loading, control[0])
    assert (noise_of(both, controls, loading, 60, context) < 0.5 / (60 * information)).all()
    assert noise_of(both, controls[:1], loading, 60)[0] > 1 / (60 * information[0])


def test_few_parts_tell_nothing():
    _, parts, control, loading = setting(0.5, n_parts=8)
    assert (noise_of(parts, control, loading, 60) == 0).all()


def test_widened_posterior_is_the_conjugate_one():
    rng = np.random.default_rng(0)
    seen, v = rng.normal(0, 1.5, (6, 3)), rng.uniform(0.01, 0.5, (6, 3))
    mu, sigma2, extra = rng.normal(0, 0.5, (6, 3)), rng.uniform(0.3, 1, (6, 3)), rng.uniform(0.01, 0.5, (6, 3))
    strength = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 3.0])

    def posterior(noise, prior):
        variance = 1 / (1 / noise + 1 / prior)
        return variance * (seen / noise + mu / prior), np.sqrt(variance)

    known = posterior(v, sigma2)
    mean, scale = widen(*known, mu, sigma2, strength, extra)
    expected = posterior(v + extra, np.maximum(1, strength**2)[:, None] * sigma2)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9)
    np.testing.assert_allclose(scale, expected[1], rtol=1e-9)
    assert (scale > known[1]).all()
    for new, old in zip(widen(*known, mu, sigma2, strength, 0 * extra), known, strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_posterior_as_wide_as_its_prior_stays_finite():
    one = np.ones((1, 2))
    mean, scale = widen(0 * one, 1.2 * one, 0 * one, one, np.ones(1), 0.3 * one)
    assert np.isfinite(mean).all()
    assert (scale <= 1.2).all()
    assert (scale > 0.9).all()
