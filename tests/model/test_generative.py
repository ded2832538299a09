"""The generative story against a sum written out with scipy, on a design small enough to read."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import gammaln, softmax

from distpert.model.design import on_target_tilts, target_indices
from distpert.model.generative import SHAPES, Batch, Design, guide, model, rows, shifted_logits
from distpert.model.priors import Priors

N_GENES, N_BINS, N_FACTORS, N_TILTS = 4, 5, 2, 2
GENES = ["A", "B", "C", "D"]
PERTURBATIONS = ["A", "B+A", "UNMEASURED", "C+UNMEASURED", "D"]
N_PERTURBATIONS = len(PERTURBATIONS)
PRIORS = Priors(
    common=1.5, context=0.7, loading=0.2, loading_smoothness=0.6, log_concentration=(5.0, 1.2), share=(2.0, 3.0)
)


def tiny(n_contexts=2, seed=0):
    """Design, groups and a value for each site."""
    rng = np.random.default_rng(seed)
    control = rng.dirichlet(np.full(N_BINS, 3.0), size=(n_contexts, N_GENES))
    points = rng.normal(size=(N_PERTURBATIONS, 2))
    kernel = np.exp(-np.linalg.norm(points[:, None] - points, axis=-1))
    eigenvalues, eigenvectors = np.linalg.eigh(kernel)
    design = Design(
        log_control=np.log(control).astype(np.float32),
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=on_target_tilts(control).astype(np.float32),
        targets=target_indices(PERTURBATIONS, GENES),
    )
    perturbation = np.array([0, 1, 2, 3, 4, 1, 0])
    context = np.array([0, 0, 0, 0, 0, 1, 1]) % n_contexts
    n_cells = np.array([30, 12, 100, 7, 55, 20, 41])
    counts = np.stack([rng.multinomial(n, rng.dirichlet(np.ones(N_BINS), size=N_GENES)) for n in n_cells])
    groups = Batch(counts.astype(np.float32), n_cells, perturbation, context)
    values = {
        "common": rng.normal(size=(N_GENES, N_BINS)),
        "loading": rng.normal(size=(N_FACTORS, N_GENES, N_BINS)) * 0.3,
        "explained_share": np.array([0.3, 0.8]),
        "response": rng.normal(size=(N_FACTORS, N_PERTURBATIONS)),
        "tilt_mean": rng.normal(size=N_TILTS),
        "tilt_scale": np.array([0.5, 1.5]),
        "on_target": rng.normal(size=(N_PERTURBATIONS, N_TILTS)),
        "log_concentration": rng.normal(4, 1, N_GENES),
    }
    if n_contexts > 1:
        values["context_shift"] = rng.normal(size=(n_contexts, N_GENES, N_BINS))
    return design, groups, {name: value.astype(np.float32) for name, value in values.items()}, kernel


@partial(jax.jit, static_argnums=2)
def log_joint(groups, values, n_groups, design):
    return log_density(model, (design, groups, n_groups, N_FACTORS, PRIORS), {}, values)[0]


@jax.jit
def draw(groups, design, known):
    """Value of each site of the model, run as a sampler."""
    story = numpyro.handlers.seed(numpyro.handlers.substitute(model, known), jax.random.key(0))
    trace = numpyro.handlers.trace(story).get_trace(design, groups, 7, N_FACTORS, PRIORS)
    assert not trace["counts"]["is_observed"]
    return {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}


def walk(values, scale):
    """Log density of random walks along the last axis, the first step from zero."""
    return stats.norm.logpdf(np.diff(values, axis=-1, prepend=0), scale=scale).sum()


def smooth_walk(values, scale, smoothness):
    """Log density of walks whose steps are an autoregression, the first value and the first step independent."""
    steps = np.diff(values, axis=-1)
    total = stats.norm.logpdf(values[..., 0], scale=scale).sum() + stats.norm.logpdf(steps[..., 0], scale=scale).sum()
    innovations = steps[..., 1:] - smoothness * steps[..., :-1]
    return total + stats.norm.logpdf(innovations, scale=scale * np.sqrt(1 - smoothness**2)).sum()


def logits_by_loop(design, groups, values):
    logits = np.zeros((len(groups.n_cells), N_GENES, N_BINS))
    for r, (p, c) in enumerate(zip(groups.perturbation, groups.context, strict=True)):
        for g in range(N_GENES):
            logits[r, g] = design.log_control[c, g] + values["common"][g]
            if "context_shift" in values:
                logits[r, g] += values["context_shift"][c, g]
            for k in range(N_FACTORS):
                logits[r, g] += values["response"][k, p] * values["loading"][k, g]
            if GENES[g] in PERTURBATIONS[p].split("+"):
                for j in range(N_TILTS):
                    logits[r, g] += values["on_target"][p, j] * design.tilts[c, g, j]
    return logits


def log_joint_by_hand(design, groups, values, kernel, n_groups):
    values = {name: value.astype(float) for name, value in values.items()}
    total = walk(values["common"], PRIORS.common)
    total += smooth_walk(values["loading"], PRIORS.loading, PRIORS.loading_smoothness)
    if "context_shift" in values:
        total += walk(values["context_shift"], PRIORS.context)
    for k in range(N_FACTORS):
        share = values["explained_share"][k]
        total += stats.beta.logpdf(share, *PRIORS.share)
        covariance = share * kernel + (1 - share) * np.eye(N_PERTURBATIONS)
        total += stats.multivariate_normal.logpdf(values["response"][k], cov=covariance)
    total += stats.norm.logpdf(values["tilt_mean"], scale=2).sum()
    total += stats.halfnorm.logpdf(values["tilt_scale"], scale=2).sum()
    total += stats.norm.logpdf(values["on_target"], values["tilt_mean"], values["tilt_scale"]).sum()
    total += stats.norm.logpdf(values["log_concentration"], *PRIORS.log_concentration).sum()
    likelihood = 0.0
    logits = logits_by_loop(design, groups, values)
    for r, n in enumerate(groups.n_cells):
        for g in range(N_GENES):
            kappa = np.exp(values["log_concentration"][g])
            a = kappa * softmax(logits[r, g])
            likelihood += (gammaln(a + groups.counts[r, g]) - gammaln(a)).sum() - gammaln(kappa + n) + gammaln(kappa)
    return total + likelihood * n_groups / len(groups.n_cells)


@pytest.mark.parametrize(("n_contexts", "n_groups"), [(1, 70), (2, 7), (2, 21)])
def test_log_joint(n_contexts, n_groups):
    design, groups, values, kernel = tiny(n_contexts)
    ours = log_joint(groups, values, n_groups, design)
    expected = log_joint_by_hand(design, groups, values, kernel, n_groups)
    np.testing.assert_allclose(ours, expected, rtol=2e-6)


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_shifted_logits_by_loop(n_contexts):
    design, groups, values, _ = tiny(n_contexts)
    common = values["common"] + values.get("context_shift", 0)
    ours = shifted_logits(
        design,
        groups.perturbation,
        groups.context,
        common,
        values["loading"],
        values["response"].T,
        values["on_target"],
    )
    np.testing.assert_allclose(ours, logits_by_loop(design, groups, values), rtol=1e-5, atol=1e-5)


def test_rows_are_those_chosen_to_the_last_bit():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2)) * [1e-6, 1e6], jnp.float32)
    chosen = np.array([2, 0, 2, 3])
    np.testing.assert_array_equal(rows(values, chosen), values[chosen])
    weight = jnp.arange(24.0).reshape(4, 3, 2)
    ours, plain = (jax.grad(lambda v, take=take: (take(v) * weight).sum())(values) for take in (
        lambda v: rows(v, chosen), lambda v: v[chosen]
    ))  # fmt: skip
    np.testing.assert_array_equal(ours, plain)


def test_no_perturbation_no_shift():
    design, groups, values, _ = tiny()
    zeros = {name: jnp.zeros_like(value) for name, value in values.items()}
    logits = shifted_logits(
        design, groups.perturbation, groups.context, zeros["common"], zeros["loading"], zeros["response"].T,
        zeros["on_target"],
    )  # fmt: skip
    np.testing.assert_allclose(jax.nn.softmax(logits), np.exp(design.log_control)[groups.context], rtol=1e-5)


def test_design_without_measured_targets():
    design, groups, values, _ = tiny()
    nobody = design._replace(targets=np.full_like(design.targets, N_GENES))
    arguments = groups.perturbation, groups.context, values["common"], values["loading"], values["response"].T
    ours = shifted_logits(nobody, *arguments, values["on_target"])
    np.testing.assert_allclose(ours, shifted_logits(design, *arguments, jnp.zeros_like(values["on_target"])), rtol=1e-6)


def test_the_same_story_draws_a_screen():
    design, groups, values, _ = tiny()
    drawn = draw(groups._replace(counts=None), design, {})
    counts = drawn.pop("counts")
    assert {name: x.shape for name, x in drawn.items()} == {name: x.shape for name, x in values.items()}
    assert counts.shape == groups.counts.shape
    np.testing.assert_array_equal(counts.sum(axis=-1), np.repeat(groups.n_cells[:, None], N_GENES, axis=1))
    # What it draws can be conditioned on.
    assert np.isfinite(log_joint(groups._replace(counts=counts), drawn, 7, design))


def test_drawn_histograms_have_the_logits_as_their_mean():
    design, groups, values, _ = tiny(n_contexts=1)
    many = groups._replace(counts=None, n_cells=np.full(7, 1_000_000))
    known = values | {"log_concentration": np.full(N_GENES, 14.0, np.float32)}
    drawn = draw(many, design, known)["counts"] / 1e6
    expected = softmax(logits_by_loop(design, groups, values), axis=-1)
    np.testing.assert_allclose(drawn, expected, atol=5e-3)


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_guide_covers_the_model(n_contexts):
    design, groups, values, _ = tiny(n_contexts)
    scales = {
        f"{name}_scale": np.full_like(values[name], scale) for name, scale in (("response", 0.1), ("on_target", 0.7))
    }
    stride = np.random.default_rng(1).uniform(1, 8, (N_GENES, N_BINS))
    start = values | scales | {"stride": stride}
    guided = numpyro.handlers.trace(numpyro.handlers.seed(guide, 0)).get_trace(design, groups, start)
    sites = {name: site for name, site in guided.items() if site["type"] == "sample"}
    assert sites.keys() == values.keys()
    for name, site in sites.items():
        assert site["value"].shape == values[name].shape
        if name in ("response", "on_target"):
            np.testing.assert_allclose(guided[f"{name}_mean"]["value"], values[name])
            np.testing.assert_allclose(guided[f"{name}_scale"]["value"], scales[f"{name}_scale"])
            assert (np.asarray(site["value"]) != values[name]).all()
        else:
            np.testing.assert_allclose(site["value"], values[name], rtol=1e-6)
    for name in set(SHAPES) & sites.keys():
        np.testing.assert_allclose(guided[f"{name}_value"]["value"], values[name] / stride, rtol=1e-6)
    story = numpyro.handlers.seed(numpyro.handlers.substitute(model, values), 0)
    modeled = numpyro.handlers.trace(story).get_trace(design, groups, 7, N_FACTORS, PRIORS)
    for name, site in sites.items():
        assert site["fn"].event_shape == modeled[name]["fn"].event_shape
        assert site["fn"].batch_shape == modeled[name]["fn"].batch_shape == ()
