"""Draws of what all perturbations share: the stated normals, the same for all, and independent between genes."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from distpert.model.basis import shift_basis
from distpert.posterior.shared import SharedPosterior, draw_log_concentration, draw_normal, typical_scale
from distpert.predictions.blocks import Block

N_GENES, N_BINS, N_FACTORS, N_DRAWS = 3, 5, 2, 20_000
ALL = slice(0, N_GENES)


@pytest.fixture(scope="module")
def parameters():
    """Parameters of two contexts, with standard deviations that differ along all coordinates."""
    rng = np.random.default_rng(0)
    contexts, factors, along = ("context", "gene"), ("factor", "gene"), (N_GENES, N_BINS - 1)
    basis = shift_basis(rng.dirichlet(np.ones(N_BINS), N_GENES), 0.6)
    values = {
        "control": ((*contexts, "bin"), rng.normal(size=(2, N_GENES, N_BINS))),
        "common": ((*contexts, "bin"), rng.normal(size=(2, N_GENES, N_BINS))),
        "loading": ((*factors, "bin"), rng.normal(size=(N_FACTORS, N_GENES, N_BINS))),
        "level_scale": ((*contexts, "direction"), rng.uniform(0.1, 1, (2, *along))),
        "common_scale": ((*contexts, "direction"), rng.uniform(0.1, 1, (2, *along))),
        "loading_scale": ((*factors, "direction"), rng.uniform(0.1, 1, (N_FACTORS, *along))),
        "basis": (("gene", "bin", "direction"), basis),
        "perturbed_share": ("context", np.array([0.7, 0.4])),
        "log_concentration": ("gene", np.array([3.0, 5.0, 4.0])),
        "log_concentration_scale": ("gene", np.array([0.3, 0.05, 0.4])),
        "log_concentration_spread": ((), np.array(0.5)),
        "typical_log_concentration": ((), np.array(4.0)),
    }
    return xr.Dataset({name: (dims, np.asarray(value, np.float32)) for name, (dims, value) in values.items()})


@pytest.fixture(scope="module", params=[0, 1])
def drawn(request, parameters):
    return request.param, draw_normal(parameters, request.param, ALL, N_DRAWS, 0)


def coordinates_of(draws, mean, basis):
    """Coordinates along the basis of what draws (draw, ..., gene, bin) are beyond their mean."""
    inverse = np.linalg.inv(np.diff(basis, axis=-2))
    return np.einsum("gjs,...gs->...gj", inverse, np.diff(draws - mean, axis=-1))


def assert_normal(draws, scale):
    """Independent normals of mean zero with these standard deviations, each along the last axes."""
    n = len(draws)
    assert (abs(draws.mean(axis=0)) < 4.5 * scale / np.sqrt(n)).all()
    np.testing.assert_allclose(draws.std(axis=0), scale, rtol=4.5 / np.sqrt(2 * n))
    off = np.corrcoef(draws.reshape(n, -1), rowvar=False) - np.eye(draws[0].size)
    assert (abs(off) < 4.5 / np.sqrt(n)).all()


def test_shapes(drawn):
    _, shared = drawn
    shapes = [(N_DRAWS, N_GENES, N_BINS)] * 2 + [(N_DRAWS, N_FACTORS, N_GENES, N_BINS), (N_DRAWS, N_GENES)]
    assert [values.shape for values in shared] == shapes
    assert {values.dtype for values in shared} == {np.dtype(np.float32)}


def test_loadings_and_shifts_have_their_standard_deviations(parameters, drawn):
    context, shared = drawn
    of = parameters.isel(context=context)
    basis = parameters["basis"].to_numpy()
    assert_normal(coordinates_of(shared.loading, of["loading"].to_numpy(), basis), of["loading_scale"].to_numpy())
    # The base is a shift from the controls of the same draw.
    shift = coordinates_of(shared.base - shared.control, of["common"].to_numpy(), basis)
    assert_normal(shift, of["common_scale"].to_numpy())


def test_level_and_shift_make_controls_and_base(parameters, drawn):
    """The level is the mean of both logits, weighted by cells; it is independent of the shift."""
    context, shared = drawn
    of, share = parameters.isel(context=context), float(parameters["perturbed_share"][context])
    basis = parameters["basis"].to_numpy()
    level = (1 - share) * shared.control + share * shared.base
    mean = of["control"].to_numpy() + share * of["common"].to_numpy()
    both = [
        coordinates_of(level, mean, basis),
        coordinates_of(shared.base - shared.control, of["common"].to_numpy(), basis),
    ]
    assert_normal(
        np.concatenate(both, axis=-1),
        np.concatenate([of["level_scale"].to_numpy(), of["common_scale"].to_numpy()], axis=-1),
    )


def test_all_have_their_means_if_nothing_is_uncertain(parameters):
    zero = [name for name in parameters if str(name).endswith(("_scale", "_spread"))]
    sure = parameters.assign({name: 0 * parameters[name] for name in zero})
    shared, of = draw_normal(sure, 1, slice(1, 3), 4, 0), parameters.isel(context=1, gene=slice(1, 3))
    assert shared.control.shape == (4, 2, N_BINS)
    np.testing.assert_array_equal(shared.control, np.broadcast_to(of["control"], shared.control.shape))
    np.testing.assert_array_equal(shared.base, np.broadcast_to(of["control"] + of["common"], shared.base.shape))
    np.testing.assert_array_equal(shared.loading, np.broadcast_to(of["loading"], shared.loading.shape))


def test_concentrations_have_their_own_and_a_common_part(parameters, drawn):
    """Var log κ_g = d_g² + (d_g² / s²)² e², and the second part is what two genes have in common."""
    _, shared = drawn
    log = np.log(shared.concentration.astype(float))
    mean, scale = (parameters[name].to_numpy() for name in ("log_concentration", "log_concentration_scale"))
    spread = float(parameters["log_concentration_spread"])
    follows = scale**2 / spread**2 * typical_scale(scale, spread)
    covariance = np.diag(scale**2) + np.outer(follows, follows)
    np.testing.assert_allclose(log.mean(axis=0), mean, atol=4.5 * 0.6 / np.sqrt(N_DRAWS))
    noise = np.sqrt((covariance**2 + np.outer(covariance.diagonal(), covariance.diagonal())) / N_DRAWS)
    assert (abs(np.cov(log, rowvar=False) - covariance) < 4.5 * noise).all()
    assert follows.min() ** 2 < 0.01 * follows.max() ** 2  # a gene whose cells tell it hardly follows the others


def test_concentrations_without_a_spread_of_genes(parameters):
    """As in files of version 2: each gene has its own posterior."""
    alone = parameters.assign(log_concentration_spread=np.float32(0))
    log = draw_log_concentration(alone, ALL, N_DRAWS, 0)
    assert_normal(log - parameters["log_concentration"].to_numpy(), parameters["log_concentration_scale"].to_numpy())


def test_typical_scale_by_quadrature():
    """Posterior of m for x_g ~ N(m, s²) seen with noise v_g, under a flat prior; d_g is that of x_g given m."""
    spread, noise = 0.7, np.array([0.2, 0.5, 1.5, 0.9])
    scale = 1 / np.sqrt(1 / spread**2 + 1 / noise**2)
    m = np.linspace(-8, 8, 20_001)
    log = sum(stats.norm.logpdf(0, m, np.hypot(spread, sd)) for sd in noise)
    weight = np.exp(log - log.max())
    expected = np.sqrt((weight * m**2).sum() / weight.sum())
    assert typical_scale(scale, spread) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("scale", "spread", "expected"), [(0.3, 0.0, 0.0), (0.5, 0.5, 1.5), (0.4, 1e-3, 1.5)])
def test_typical_scale_at_the_limits(scale, spread, expected):
    """No spread: none. If the cells tell nothing, it is that of its prior."""
    assert typical_scale(np.full(3, scale), spread) == pytest.approx(expected)


# --------------------------------------------------------------------------------------------- which draws are the same


def test_slices_of_genes_have_random_numbers_of_their_own(parameters):
    first, second = (draw_normal(parameters, 0, genes, 2000, 0) for genes in (slice(0, 1), slice(1, 3)))
    for name in ("control", "base"):
        one, other = getattr(first, name)[:, 0], getattr(second, name).reshape(2000, -1)
        across = np.corrcoef(np.concatenate([one, other], axis=1), rowvar=False)[:N_BINS, N_BINS:]
        assert (abs(across) < 4.5 / np.sqrt(2000)).all()
    # A slice has the same draws, however many genes others have.
    np.testing.assert_array_equal(draw_normal(parameters, 0, slice(1, 3), 2000, 0).base, second.base)


def test_level_shift_and_loading_do_not_share_random_numbers(parameters):
    one = draw_normal(parameters, 0, ALL, 2000, 0)
    parts = [one.control[:, 0], (one.base - one.control)[:, 0], one.loading[:, 0, 0], one.loading[:, 1, 0]]
    found = np.corrcoef(np.concatenate([part[:, 1:2] - part[:, :1] for part in parts[1:]], axis=1), rowvar=False)
    assert (abs(found - np.eye(3)) < 4.5 / np.sqrt(2000)).all()


def test_contexts_have_levels_of_their_own_and_the_same_loadings(parameters):
    first, second = (draw_normal(parameters, context, ALL, 2000, 0) for context in (0, 1))
    np.testing.assert_array_equal(first.loading, second.loading)
    np.testing.assert_array_equal(first.concentration, second.concentration)
    across = np.corrcoef(
        first.control[:, 0, 1] - first.control[:, 0, 0], second.control[:, 0, 1] - second.control[:, 0, 0]
    )
    assert abs(across[0, 1]) < 4.5 / np.sqrt(2000)


def test_seeds(parameters):
    first, again, other = (draw_normal(parameters, 0, ALL, 5, seed) for seed in (0, 0, 1))
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != different).any()


def test_slices_are_kept_up_to_a_limit(parameters, monkeypatch):
    shared = SharedPosterior(parameters)
    first = shared.draw(0, ALL, 5, 0)
    assert shared.draw(0, ALL, 5, 0) is first
    second = shared.draw(1, ALL, 5, 0)
    assert second.loading is first.loading  # contexts share it, and it counts once
    np.testing.assert_array_equal(second.loading, SharedPosterior(parameters).draw(1, ALL, 5, 0).loading)
    each = sum(values.nbytes for values in first)
    assert each < shared._bytes() < 2 * each
    monkeypatch.setattr("distpert.posterior.shared.MOST_BYTES", each)
    for other in [(0, slice(0, 1), 5, 0), (0, ALL, 6, 0)]:
        assert shared.draw(*other).control.shape[0] == other[2]
    assert len(shared._kept) == 1  # the newest is larger than the limit
    again = shared.draw(0, ALL, 5, 0)
    assert again is not first
    np.testing.assert_array_equal(again.base, first.base)


def test_it_can_be_pickled(parameters):
    shared = SharedPosterior(parameters)
    shared.draw(0, ALL, 5, 0)
    back = pickle.loads(pickle.dumps(shared))
    assert not back._kept
    for one, other in zip(back.draw(0, ALL, 5, 0), shared.draw(0, ALL, 5, 0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fit_with_draws_in_memory_can_be_pickled(context_fit):
    before = context_fit.predict("GENE1", num_draws=5, progress_bar=False).histogram()
    back = pickle.loads(pickle.dumps(context_fit))
    assert back.predict("GENE1", num_draws=5, progress_bar=False).histogram().identical(before)


def test_all_perturbations_have_the_same_draws(context_fit):
    """Without responses and tilts, the expected histograms of two perturbations are the same draw by draw."""
    prediction = context_fit.predict(["GENE5", "GENE11"], num_draws=7, progress_bar=False)
    nothing = {"response": 0 * prediction.response, "on_target": 0 * prediction.on_target}
    prediction = replace(prediction, **nothing, inactive=np.zeros_like(prediction.inactive))
    for context in (0, 1):
        probs = [prediction.probs(Block(p, context, slice(0, 14))) for p in (0, 1)]
        np.testing.assert_array_equal(*probs)
        base = context_fit.shared.draw(context, slice(0, 14), 7, 0).base.astype(float)
        expected = np.exp(base) / np.exp(base).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(probs[0], expected, rtol=1e-4, atol=1e-7)
        assert (probs[0].std(axis=0).max(axis=-1) > 1e-4).all()


def test_a_perturbation_that_does_nothing_has_the_controls_of_the_same_draw(context_fit):
    prediction = context_fit.predict(["GENE5"], num_draws=6, progress_bar=False)
    prediction = replace(prediction, inactive=np.array([[True], [False]] * 3))
    probs = prediction.probs(Block(0, 1, slice(0, 14)))
    control = context_fit.shared.draw(1, slice(0, 14), 6, 0).control.astype(float)
    control = np.exp(control) / np.exp(control).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probs[::2], control[::2], rtol=1e-4, atol=1e-7)
    assert (abs(probs[1::2] - control[1::2]).max(axis=(1, 2)) > 1e-3).all()


def test_shared_at_its_mean(context_fit):
    prediction = replace(context_fit.predict("GENE5", num_draws=6, progress_bar=False), shared_at_mean=True)
    free = context_fit.shared.draw(0, slice(0, 14), 6, 0)
    for fixed, drawn in zip(prediction.shared(Block(0, 0, slice(0, 14))), free, strict=True):
        np.testing.assert_allclose(fixed, np.broadcast_to(drawn.mean(axis=0), drawn.shape), rtol=1e-5, atol=1e-6)
        assert drawn.std(axis=0).max() > 0


def test_chains_have_their_draws(sampled):
    shared = sampled.shared.draw(1, slice(2, 9), 6, seed=4)
    control = sampled.samples["control"].to_numpy()[:, [0, 7], 1, 2:9].reshape(6, 7, 15)
    np.testing.assert_array_equal(shared.control, control)
    assert [values.shape[0] for values in shared] == [6] * 4
    np.testing.assert_array_equal(sampled.shared.draw(1, slice(2, 9), 6, seed=0).base, shared.base)  # nothing is drawn
