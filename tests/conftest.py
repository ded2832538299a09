"""Simulated screens and fits of them, made once: compiling a fit takes seconds for each new shape."""

import os
from dataclasses import dataclass

# Compiling costs more than running here. Set before JAX is imported.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")

import anndata
import jax
import numpy as np
import pandas as pd
import pytest

import distpert
from distpert.embeddings.sources import as_embeddings
from distpert.embeddings.vectors import Embeddings


@pytest.fixture(scope="session")
def screen():
    """Many cells and perturbations, and embeddings that tell nearly everything."""
    return distpert.simulate(
        n_perturbations=80, n_unseen=40, n_genes=12, n_cells=300, embedding_dim=1, explained_share=0.99, seed=0
    )


@pytest.fixture(scope="session")
def fitted(screen):
    return distpert.fit(screen.adata, screen.embeddings, n_factors=3, progress_bar=False)


@pytest.fixture(scope="session")
def unseen(screen, fitted):
    """Labels of the perturbations that have a true distribution but no cells."""
    return [label for label in screen.truth["perturbation"].to_numpy().tolist() if label not in fitted.perturbations]


@pytest.fixture(scope="session")
def context_screen():
    """Two contexts; the unseen perturbed genes are measured."""
    return distpert.simulate(n_perturbations=10, n_unseen=2, n_genes=14, n_cells=60, n_controls=200, n_contexts=2)


@pytest.fixture(scope="session")
def context_fit(context_screen):
    return distpert.fit(context_screen.adata, context_screen.embeddings, context_key="context", progress_bar=False)


@pytest.fixture(scope="session")
def small():
    """As small a screen as can be fitted in an instant; take a copy to change it."""
    return distpert.simulate(n_perturbations=6, n_unseen=1, n_genes=5, n_cells=20, n_controls=50, seed=1)


@pytest.fixture(scope="session")
def small_fit(small):
    return distpert.fit(small.adata, small.embeddings, progress_bar=False)


@pytest.fixture(scope="session")
def chains():
    """Markov chains on a tiny screen: much too short, and the fit says so."""
    screen = distpert.simulate(n_perturbations=5, n_unseen=2, n_genes=4, n_cells=30, n_controls=50, seed=2)
    sampling = distpert.Sampling(num_warmup=20, num_samples=20, num_chains=2, max_tree_depth=4)
    options = {"n_bins": 5, "n_factors": 2, "inference": "nuts", "sampling": sampling, "progress_bar": False}
    told = r"of 40 transitions diverged, and R-hat is up to .* sampling=Sampling\(num_warmup=40, num_samples=40, "
    with pytest.warns(UserWarning, match=told) as caught:
        fit = distpert.fit(screen.adata, screen.embeddings, **options)
    assert [warning.filename for warning in caught] == [__file__]
    return fit


@pytest.fixture(scope="session")
def raw_draws(context_fit):
    """Values for all sites of the model of two contexts, as three chains of eight draws: made up."""
    rng = np.random.default_rng(5)
    start = context_fit.numpyro_model().start
    sites = {name: value for name, value in start.items() if not name.endswith(("_scale", "_unit"))}
    sites["tilt_scale"] = start["tilt_scale"]
    noise = {name: rng.normal(size=(3, 8, *np.shape(value))) for name, value in sites.items()}
    wide = {"explained_share", "direction_size", "common_size", "context_size", "factor_size", "tilt_scale"}
    wide.add("log_concentration_spread")
    return {
        name: (1 / (1 + np.exp(-noise[name])) if name in wide else value + 0.2 * noise[name])
        for name, value in sites.items()
    }


@pytest.fixture(scope="session")
def sampled(context_fit, raw_draws):
    """The fit of two contexts, with predictions from these draws."""
    return context_fit.with_samples(raw_draws)


@pytest.fixture(scope="session")
def draws_of():
    """All histograms of a prediction at once, (draw, perturbation, context, gene, bin)."""
    from distpert.predictions.blocks import blocks

    def collect(prediction):
        shape = (len(prediction.perturbations), len(prediction.contexts), len(prediction.genes))
        out = np.empty((prediction.num_draws, *shape, prediction.training.n_bins), np.float32)
        for block in blocks(*shape):
            out[:, block.perturbation, block.context, block.genes] = prediction.draw(block)
        return out

    return collect


# A screen small enough for brute force: three days, pairs, groups without cells, a day of controls alone.

TINY_GENES = ("A", "B", "X", "Y")
TINY_GROUPS = {
    "control": {"d1": 40, "d2": 25, "d3": 30},
    "A": {"d1": 12, "d2": 20},
    "B": {"d1": 15},
    "C": {"d1": 9, "d2": 11},
    "A+B": {"d1": 14, "d2": 8},
    "C+D": {"d2": 10},
}


@dataclass(frozen=True)
class Tiny:
    """The cells, their histograms, and shares of bins counted in another way."""

    adata: anndata.AnnData
    histograms: distpert.Histograms
    embeddings: Embeddings

    @property
    def centers(self):
        return self.histograms.centers.to_numpy()

    def cells(self, label, context="all"):
        here = self.adata.obs["perturbation"] == label
        return self.adata.X[here & ((context == "all") | (self.adata.obs["day"] == context))]

    def counts(self, label, context="all"):
        left, right = (self.histograms.dataset[name].to_numpy() for name in ("bin_left", "bin_right"))
        edges = np.concatenate([left, right[:, -1:]], axis=1)
        cells = self.cells(label, context)
        return np.array([np.histogram(cells[:, g], edges[g])[0] for g in range(cells.shape[1])]).astype(float)

    def shares(self, label, context="all"):
        counts = self.counts(label, context)
        return counts / counts.sum(axis=-1, keepdims=True)

    def shift(self, label, context):
        """Shift of shares from control; where there are no cells, the mean of the days that have some."""
        days = [day for day in ("d1", "d2", "d3") if len(self.cells(label, day))]
        used = [context] if context in (*days, "all") else days
        return np.mean([self.shares(label, day) - self.shares("control", day) for day in used], axis=0)


def make_tiny(context_key):
    rng = np.random.default_rng(7)
    rows, obs = [], []
    for p, (label, days) in enumerate(TINY_GROUPS.items()):
        for d, (day, n_cells) in enumerate(days.items()):
            level = np.array([2.0, 3.0, 1.0, 4.0]) + 0.5 * np.cos(3.0 * p + np.arange(4)) + 0.4 * d
            rows.append(np.abs(rng.normal(level, 1.0, (n_cells, 4))) * (rng.random((n_cells, 4)) > 0.2))
            obs += [(label, day)] * n_cells
    adata = anndata.AnnData(
        np.concatenate(rows).astype(np.float32),
        obs=pd.DataFrame(obs, columns=["perturbation", "day"], index=[f"cell{i}" for i in range(len(obs))]),
        var=pd.DataFrame(index=list(TINY_GENES)),
    )
    embeddings = as_embeddings(dict(zip("ABCDEF", rng.normal(size=(6, 3)), strict=True)))
    return Tiny(adata, distpert.count_histograms(adata, context_key=context_key, n_bins=6), embeddings)


@pytest.fixture(scope="session")
def tiny():
    """Three days; B and C+D were perturbed on one of them, and nothing on the third."""
    return make_tiny("day")


@pytest.fixture(scope="session")
def tiny_all():
    """The same cells without contexts."""
    return make_tiny(None)


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_code():
    """Compiled code is kept for each shape, and all of it would stand in memory at the end of a whole run."""
    yield
    jax.clear_caches()
