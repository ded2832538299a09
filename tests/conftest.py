"""Simulated screens and fits of them, made once: compiling a fit takes seconds for each new shape."""

import numpy as np
import pytest

import distpert


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
def draws_of():
    """All histograms of a prediction at once, (draw, perturbation, context, gene, bin)."""
    from distpert.predictions.draws import blocks

    def collect(prediction):
        shape = (len(prediction.perturbations), len(prediction.contexts), len(prediction.genes))
        out = np.empty((prediction.num_draws, *shape, prediction.fit.histograms.n_bins), np.float32)
        for block in blocks(*shape):
            out[:, block.perturbation, block.context, block.genes] = prediction._draw(block)
        return out

    return collect
