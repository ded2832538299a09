"""Markov chains: settings that check themselves, the model as it is bound to a screen, and a tiny run."""

import re
from dataclasses import FrozenInstanceError

import numpy as np
import numpyro
import pytest

from distpert import Sampling
from distpert.model.generative import SITES
from distpert.model.sampling import NON_CENTERED, run_chains


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_warmup", 0, "num_warmup must be at least 1, not 0"),
        ("num_samples", 3, "num_samples must be at least 4, not 3"),
        ("num_chains", 0, "num_chains must be at least 1, not 0"),
        ("max_tree_depth", -1, "max_tree_depth must be at least 1, not -1"),
        ("num_samples", 10.5, "num_samples must be a whole number of at least 4, not 10.5"),
        ("target_accept_prob", 0, "target_accept_prob must be a finite number above 0 and below 1, not 0"),
        ("target_accept_prob", 1.0, "target_accept_prob must be a finite number above 0 and below 1, not 1.0"),
        ("target_accept_prob", np.nan, "target_accept_prob must be a finite number above 0 and below 1, not nan"),
    ],
)
def test_settings_that_make_no_sense(name, value, message):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}"):
        Sampling(**{name: value})


def test_settings_are_plain_and_do_not_change():
    given = Sampling(num_warmup=np.int64(7), target_accept_prob=np.float32(0.5))
    assert type(given.num_warmup) is int
    assert type(given.target_accept_prob) is float
    assert given == Sampling(num_warmup=7, target_accept_prob=0.5)
    with pytest.raises(FrozenInstanceError):
        given.num_chains = 2
    with pytest.raises(TypeError, match="positional"):
        Sampling(100)


def test_a_bound_model_has_the_sites_of_the_guide(context_fit):
    story = context_fit.numpyro_model()
    seeded = numpyro.handlers.seed(numpyro.handlers.substitute(story.model, story.start), 0)
    trace = numpyro.handlers.trace(seeded).get_trace(story.design, story.batch)
    observed = {name for name, site in trace.items() if site["type"] == "sample" and site["is_observed"]}
    latent = {name for name, site in trace.items() if site["type"] == "sample"} - observed
    assert observed == {"control_counts", "counts"}
    assert latent == set(SITES)
    assert set(NON_CENTERED) <= latent
    n_groups = int((context_fit.histograms.dataset["perturbation"] != "control").sum())
    assert len(story.batch.perturbation) == n_groups == 20
    assert trace["counts"]["scale"] == 1  # all groups, each once
    np.testing.assert_array_equal(story.design.control_counts, context_fit.groups.control_counts)


def test_repr_of_a_bound_model(context_fit):
    k, p, g, d = context_fit.n_factors, 10, 14, 14
    # In the order of the model. The name tilt_scale ends as that of a standard deviation does, and is a site as well.
    sizes = [2 * g * d, 1, g * d, 1, 2 * g * d, k, d, k * g * d, k, k * p, 2, 2, 2 * p, 1, 1, g]
    assert len(sizes) == len(SITES)
    text = repr(context_fit.numpyro_model())
    assert text == f"NumpyroModel: {sum(sizes):,} parameters in {len(sizes)} sites, 20 groups"


class Watched:
    """Stands for ``numpyro.infer.MCMC`` and ``NUTS``, and keeps what it was given."""

    def __init__(self, *args, **options):
        self.args, self.options = args, options

    def run(self, key, design, batch, extra_fields):
        self.ran = design, batch, extra_fields

    def get_extra_fields(self):
        return {"diverging": np.array([True, False, False, True]), "num_steps": np.array([7, 3, 8, 1])}

    def get_samples(self, group_by_chain):
        assert group_by_chain
        return {"x": np.zeros((2, 2))}


def test_settings_reach_the_sampler(monkeypatch, small_fit):
    made = []

    def make(*args, **options):
        made.append(Watched(*args, **options))
        return made[-1]

    monkeypatch.setattr("numpyro.infer.MCMC", make)
    monkeypatch.setattr("numpyro.infer.NUTS", make)
    settings = Sampling(num_warmup=5, num_samples=6, num_chains=2, target_accept_prob=0.7, max_tree_depth=3)
    found = run_chains(small_fit.numpyro_model(), settings, seed=3, progress_bar=False)
    nuts, mcmc = made
    assert nuts.options == {"target_accept_prob": 0.7, "max_tree_depth": 3}
    assert mcmc.args == (nuts,)
    assert mcmc.options == {
        "num_warmup": 5, "num_samples": 6, "num_chains": 2, "chain_method": "vectorized", "progress_bar": False,
    }  # fmt: skip
    assert found.divergences == 2
    assert found.at_depth == 0.5  # of 2 ** 3 - 1 steps or more
    assert found.samples.keys() == {"x"}


def test_chains_have_draws_of_all_sites(chains):
    """Of the model itself, not of the multiples of scales in which chains move."""
    story = chains.numpyro_model()
    one_context = {name for name in SITES if name not in ("common", "context_size")}
    assert set(chains.samples.data_vars) >= one_context - {"level", "shift"}  # these are kept along the bins
    assert dict(chains.samples.sizes) | {"chain": 2, "draw": 20, "factor": 2, "perturbation": 5} == chains.samples.sizes
    assert chains.samples["explained_share"].to_numpy().std() > 0
    assert not np.array_equal(*chains.samples["response"].to_numpy())  # chains start apart
    assert len(story.start["loading"]) == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_chains(chains):
    settings = Sampling(**chains.settings["sampling"])
    found = run_chains(chains.numpyro_model(), settings, seed=chains.settings["seed"], progress_bar=False)
    np.testing.assert_array_equal(found.samples["log_concentration"], chains.samples["log_concentration"])
    np.testing.assert_array_equal(np.swapaxes(found.samples["response"], -1, -2), chains.samples["response"])
    assert found.divergences == chains.diagnostics["divergences"]
    assert found.at_depth == chains.diagnostics["at_greatest_depth"]
