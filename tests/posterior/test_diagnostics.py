"""Whether chains agree: R-hat of what data identify, however chains rotate loadings and responses."""

import numpy as np
import pytest
import xarray as xr
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from scipy.special import softmax

from distpert.posterior.diagnostics import diagnose
from distpert.training.groups import TrainingGroups

N_CHAINS, N_DRAWS, N_FACTORS, N_BINS = 2, 100, 3, 6


@pytest.fixture(scope="module")
def groups(tiny):
    return TrainingGroups(tiny.histograms)


@pytest.fixture(scope="module")
def samples(groups):
    """Independent draws, so that chains agree."""
    rng = np.random.default_rng(0)
    n_contexts, n_perturbations, n_genes = len(groups.contexts), len(groups.perturbations), 4
    shapes = {
        "control": {"context": n_contexts, "gene": n_genes, "bin": N_BINS},
        "common": {"context": n_contexts, "gene": n_genes, "bin": N_BINS},
        "loading": {"factor": N_FACTORS, "gene": n_genes, "bin": N_BINS},
        "response": {"perturbation": n_perturbations, "factor": N_FACTORS},
        "on_target": {"perturbation": n_perturbations, "tilt": 2},
        "log_concentration": {"gene": n_genes},
    }
    values = {}
    for name, sizes in shapes.items():
        mean, noise = rng.normal(size=tuple(sizes.values())), rng.normal(size=(N_CHAINS, N_DRAWS, *sizes.values()))
        values[name] = (("chain", "draw", *sizes), (mean + 0.1 * noise).astype(np.float32))
    return xr.Dataset(values)


def quantities(samples, groups):
    """What is identified, written out: (chain, draw, number)."""
    centers = groups.histograms.centers.to_numpy().astype(float)
    value = {name: array.to_numpy().astype(float) for name, array in samples.items()}
    found = []
    for c in range(len(groups.contexts)):
        for p in range(len(groups.perturbations)):
            shift = sum(value["response"][:, :, p, k, None, None] * value["loading"][:, :, k] for k in range(N_FACTORS))
            probs = softmax(value["control"][:, :, c] + value["common"][:, :, c] + shift, axis=-1)
            found.append((probs * centers).sum(axis=-1))
    found += [value[name] for name in ("on_target", "log_concentration")]
    return np.concatenate([x.reshape(*x.shape[:2], -1) for x in found], axis=-1)


def test_by_loop(samples, groups):
    found, values = diagnose(samples, groups), quantities(samples, groups)
    assert found["r_hat"] == pytest.approx(np.max(split_gelman_rubin(values)), rel=1e-4)
    assert found["n_eff"] == pytest.approx(np.min(effective_sample_size(values)), rel=1e-2)
    assert found["r_hat"] < 1.06


@pytest.mark.parametrize("name", ["log_concentration", "on_target", "control", "common"])
def test_a_chain_that_is_elsewhere(samples, groups, name):
    moved = samples.copy(deep=True)
    shift = np.linspace(0, 1, N_BINS, dtype=np.float32) if "bin" in moved[name].dims else np.float32(1)
    moved[name][{"chain": 0}] = moved[name][{"chain": 0}] + shift
    found = diagnose(moved, groups)
    assert found["r_hat"] > 1.5
    assert found["n_eff"] < 20 < diagnose(samples, groups)["n_eff"]


def test_rotations_do_not_count(samples, groups):
    """A chain with its factors rotated says the same of all distributions."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(N_FACTORS, N_FACTORS)))[0].astype(np.float32)
    moved = samples.copy(deep=True)
    moved["response"][{"chain": 1}] = moved["response"][{"chain": 1}].to_numpy() @ rotation
    moved["loading"][{"chain": 1}] = np.einsum("dkgb,kj->djgb", moved["loading"][{"chain": 1}].to_numpy(), rotation)
    assert diagnose(moved, groups)["r_hat"] == pytest.approx(diagnose(samples, groups)["r_hat"], rel=1e-3)
    assert np.max(split_gelman_rubin(moved["response"].to_numpy().astype(float))) > 1.5  # by itself it has changed


def test_a_constant_has_no_r_hat(samples, groups):
    same = samples.assign(on_target=0 * samples["on_target"], log_concentration=0 * samples["log_concentration"] + 4)
    found, values = diagnose(same, groups), quantities(samples, groups)[..., : -4 - 2 * len(groups.perturbations)]
    assert found["r_hat"] == pytest.approx(np.max(split_gelman_rubin(values)), rel=1e-4)


def test_of_a_fit(chains):
    """Chains that are much too short do not agree, and the fit has not converged."""
    found = diagnose(chains.samples, chains.groups)
    assert {name: chains.diagnostics[name] for name in found} == found
    assert chains.diagnostics.keys() == {"divergences", "at_greatest_depth", "r_hat", "n_eff"}
    assert found["r_hat"] > 1.05
    assert 0 <= chains.diagnostics["at_greatest_depth"] <= 1
    assert not chains.converged
