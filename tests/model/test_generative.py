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

from distpert.model.basis import shift_basis
from distpert.model.design import on_target_tilts, target_indices
from distpert.model.generative import SITES, Batch, Design, base_logits, guide, model, rows, shifted_logits
from distpert.model.priors import Priors

N_GENES, N_BINS, N_FACTORS, N_TILTS = 4, 5, 2, 2
GENES = ["A", "B", "C", "D"]
PERTURBATIONS = ["A", "B+A", "UNMEASURED", "C+UNMEASURED", "D"]
N_PERTURBATIONS = len(PERTURBATIONS)
N_DIRECTIONS = N_BINS - 1
PRIORS = Priors(
    level=1.1, common=1.5, context=0.7, loading=0.2, direction=0.4, log_concentration=(5.0, 1.2), share=(2.0, 3.0)
)
OPTIONS = {"n_factors": N_FACTORS, "priors": PRIORS}


def tiny(n_contexts=2, seed=0):
    """Design, groups and a value for each site."""
    rng = np.random.default_rng(seed)
    control = rng.dirichlet(np.full(N_BINS, 3.0), size=(n_contexts, N_GENES))
    points = rng.normal(size=(N_PERTURBATIONS, 2))
    kernel = np.exp(-np.linalg.norm(points[:, None] - points, axis=-1))
    eigenvalues, eigenvectors = np.linalg.eigh(kernel)
    design = Design(
        log_pooled=np.log(control).astype(np.float32),
        basis=shift_basis(control.mean(axis=0), 0.6).astype(np.float32),
        perturbed_share=rng.uniform(0.2, 0.9, n_contexts).astype(np.float32),
        control_counts=rng.integers(0, 30, control.shape).astype(np.float32),
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
    coordinates = (N_GENES, N_DIRECTIONS)
    values = {
        "level": 0.5 * rng.normal(size=(n_contexts, *coordinates)),
        "common_size": np.array(0.4),
        "shift": 0.5 * rng.normal(size=(n_contexts, *coordinates)),
        "factor_size": np.array([0.2, 0.4]),
        "direction_size": rng.uniform(0.5, 1.5, N_DIRECTIONS),
        "loading": 0.3 * rng.normal(size=(N_FACTORS, *coordinates)),
        "explained_share": np.array([0.3, 0.8]),
        "response": rng.normal(size=(N_FACTORS, N_PERTURBATIONS)),
        "tilt_mean": rng.normal(size=N_TILTS),
        "tilt_scale": np.array([0.5, 1.5]),
        "on_target": rng.normal(size=(N_PERTURBATIONS, N_TILTS)),
        "typical_log_concentration": np.array(4.5),
        "log_concentration_spread": np.array(0.7),
        "log_concentration": rng.normal(4, 1, N_GENES),
    }
    if n_contexts > 1:
        values |= {"common": 0.5 * rng.normal(size=coordinates), "context_size": np.array(0.3)}
    return design, groups, {name: value.astype(np.float32) for name, value in values.items()}, kernel


@partial(jax.jit, static_argnums=2)
def log_joint(groups, values, n_groups, design):
    return log_density(model, (design, groups), {"n_groups": n_groups, **OPTIONS}, values)[0]


@jax.jit
def draw(groups, design, known):
    """Value of each site of the model, run as a sampler."""
    story = numpyro.handlers.seed(numpyro.handlers.substitute(model, known), jax.random.key(0))
    trace = numpyro.handlers.trace(story).get_trace(design, groups, n_groups=7, **OPTIONS)
    assert not trace["counts"]["is_observed"]
    return {
        name: site["value"] for name, site in trace.items() if site["type"] == "sample" and name != "control_counts"
    }


def base_by_loop(design, values):
    """Logits of controls and of perturbed cells without a response, (context, gene, bin) each."""
    control, base = np.zeros((2, *design.log_pooled.shape))
    for c, share in enumerate(design.perturbed_share.astype(float)):
        for g in range(N_GENES):
            level = design.log_pooled[c, g] + design.basis[g] @ values["level"][c, g]
            shift = design.basis[g] @ values["shift"][c, g]
            control[c, g], base[c, g] = level - share * shift, level + (1 - share) * shift
    return control, base


def logits_by_loop(design, groups, values):
    _, base = base_by_loop(design, values)
    logits = np.zeros((len(groups.n_cells), N_GENES, N_BINS))
    for r, (p, c) in enumerate(zip(groups.perturbation, groups.context, strict=True)):
        for g in range(N_GENES):
            logits[r, g] = base[c, g]
            for k in range(N_FACTORS):
                logits[r, g] += values["response"][k, p] * (design.basis[g] @ values["loading"][k, g])
            if GENES[g] in PERTURBATIONS[p].split("+"):
                for j in range(N_TILTS):
                    logits[r, g] += values["on_target"][p, j] * design.tilts[c, g, j]
    return logits


def log_joint_by_hand(design, groups, values, kernel, n_groups):
    values = {name: value.astype(float) for name, value in values.items()}
    norm, halfnorm = stats.norm.logpdf, stats.halfnorm.logpdf
    total = norm(values["level"], scale=PRIORS.level).sum() + halfnorm(values["common_size"], scale=PRIORS.common)
    center, size = 0.0, values["common_size"]
    if "common" in values:
        total += norm(values["common"], 0, size).sum() + halfnorm(values["context_size"], scale=PRIORS.context)
        center, size = values["common"], values["context_size"]
    total += norm(values["shift"], center, size).sum()
    total += halfnorm(values["factor_size"], scale=PRIORS.loading).sum()
    total += stats.lognorm.logpdf(values["direction_size"], PRIORS.direction).sum()
    for k in range(N_FACTORS):
        total += norm(values["loading"][k], 0, values["factor_size"][k] * values["direction_size"]).sum()
        share = values["explained_share"][k]
        total += stats.beta.logpdf(share, *PRIORS.share)
        covariance = share * kernel + (1 - share) * np.eye(N_PERTURBATIONS)
        total += stats.multivariate_normal.logpdf(values["response"][k], cov=covariance)
    total += norm(values["tilt_mean"], scale=2).sum() + halfnorm(values["tilt_scale"], scale=2).sum()
    total += norm(values["on_target"], values["tilt_mean"], values["tilt_scale"]).sum()
    typical, spread = values["typical_log_concentration"], values["log_concentration_spread"]
    total += norm(typical, *PRIORS.log_concentration) + halfnorm(spread)
    total += norm(values["log_concentration"], typical, spread).sum()
    control, _ = base_by_loop(design, values)
    total += (design.control_counts * np.log(softmax(control, axis=-1))).sum()
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
    control, base = base_logits(design, values["level"], values["shift"])
    loadings = np.einsum("kgj,gbj->kgb", values["loading"], design.basis)
    of_groups = groups.perturbation, groups.context
    ours = shifted_logits(design, *of_groups, base, loadings, values["response"].T, values["on_target"])
    np.testing.assert_allclose(control, base_by_loop(design, values)[0], rtol=1e-5, atol=1e-5)
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
    no = {name: jnp.zeros_like(value) for name, value in values.items()}
    control, base = base_logits(design, no["level"], no["shift"])
    np.testing.assert_array_equal(control, base)
    of_groups = groups.perturbation, groups.context
    loadings = jnp.ones((N_FACTORS, N_GENES, N_BINS))
    logits = shifted_logits(design, *of_groups, base, loadings, no["response"].T, no["on_target"])
    np.testing.assert_allclose(jax.nn.softmax(logits), np.exp(design.log_pooled)[groups.context], rtol=1e-5)


def test_the_level_lies_between():
    """The mean of the logits of controls and perturbed cells, weighted by cells, does not depend on the shift."""
    design, _, values, _ = tiny()
    control, base = base_logits(design, values["level"], values["shift"])
    share = design.perturbed_share[:, None, None]
    level = design.log_pooled + np.einsum("cgj,gbj->cgb", values["level"], design.basis)
    np.testing.assert_allclose((1 - share) * control + share * base, level, rtol=1e-4, atol=1e-5)


def test_design_without_measured_targets():
    design, groups, values, _ = tiny()
    nobody = design._replace(targets=np.full_like(design.targets, N_GENES))
    loadings = np.einsum("kgj,gbj->kgb", values["loading"], design.basis)
    arguments = groups.perturbation, groups.context, design.log_pooled, loadings, values["response"].T
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
    normal = [name for name in values if SITES[name] is None]
    scales = {f"{name}_scale": np.full_like(values[name], 0.1) for name in normal}
    units = {f"{name}_unit": np.full_like(values[name], 0.3) for name in ("level", "loading")}
    guided = numpyro.handlers.trace(numpyro.handlers.seed(guide, 0)).get_trace(values | scales | units)
    sites = {name: site for name, site in guided.items() if site["type"] == "sample"}
    assert sites.keys() == values.keys()
    for name, site in sites.items():
        assert site["value"].shape == values[name].shape
        if name in normal:
            unit = units.get(f"{name}_unit", 1.0)
            np.testing.assert_allclose(unit * guided[f"{name}_mean"]["value"], values[name], rtol=1e-5)
            np.testing.assert_allclose(guided[f"{name}_scale"]["value"], scales[f"{name}_scale"])
            assert (np.asarray(site["value"]) != values[name]).all()
        else:
            np.testing.assert_allclose(site["value"], values[name], rtol=1e-6)
    story = numpyro.handlers.seed(numpyro.handlers.substitute(model, values), 0)
    modeled = numpyro.handlers.trace(story).get_trace(design, groups, n_groups=7, **OPTIONS)
    for name, site in sites.items():
        assert site["fn"].event_shape == modeled[name]["fn"].event_shape
        assert site["fn"].batch_shape == modeled[name]["fn"].batch_shape == ()
