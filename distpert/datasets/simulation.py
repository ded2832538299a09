"""Small screens with known true distributions, drawn from the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.arguments import check_count, check_seed

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from anndata import AnnData


@dataclass(frozen=True, eq=False, repr=False)
class Simulation:
    """A simulated screen, as `simulate` returns it.

    Attributes
    ----------
    adata : AnnData
        Cells × genes. ``obs`` has a column ``perturbation`` and, with several contexts, a column ``context``. The
        values of ``X`` are bin centers.
    embeddings : DataFrame, shape (genes, dims)
        Embeddings of all perturbed genes, also of the ``n_unseen`` ones without cells.
    truth : Dataset
        ``histogram`` (perturbation, context, gene, bin), the true distribution of each perturbation, with and without
        cells; ``response`` (perturbation, factor), the latent response; ``center`` (gene, bin), the bin centers.

    See Also
    --------
    distpert.simulate

    Examples
    --------
    >>> screen = distpert.simulate(n_unseen=5)  # doctest: +SKIP
    >>> screen.truth["histogram"].sel(perturbation="GENE34", gene="GENE0")  # doctest: +SKIP
    """

    adata: AnnData
    embeddings: pd.DataFrame
    truth: xr.Dataset

    def __repr__(self) -> str:
        sizes = self.truth.sizes
        unseen = sizes["perturbation"] - (self.adata.obs["perturbation"].nunique() - 1)
        return (
            f"Simulation: {self.adata.n_obs:,} cells, {sizes['perturbation']} perturbations ({unseen} of them without "
            f"cells) × {sizes['gene']} genes, {sizes['context']} context{'s'[: sizes['context'] > 1]}"
        )


def simulate(
    *,
    n_perturbations: int = 30,
    n_unseen: int = 0,
    n_genes: int = 40,
    n_cells: int = 150,
    n_controls: int = 1000,
    n_contexts: int = 1,
    n_factors: int = 3,
    n_bins: int = 15,
    embedding_dim: int = 2,
    explained_share: float = 0.9,
    concentration: float = 300.0,
    common: float = 0.3,
    context_shift: float = 0.1,
    loading: float = 0.3,
    loading_smoothness: float = 0.0,
    on_target: float = -2.0,
    seed: int = 0,
) -> Simulation:
    """Draw a screen from the generative model that `fit` uses, by default with rougher loadings than its priors expect.

    Parameters
    ----------
    n_perturbations : int
        Number of perturbations with cells.
    n_unseen : int
        Number of further perturbations, with an embedding and a true distribution but no cells.
    n_genes : int
        Number of measured genes. The first ones are the perturbed genes.
    n_cells : int
        Cells of each perturbation in each context.
    n_controls : int
        Control cells in each context, at least 2: one has the smallest and one the largest value of each gene.
    n_contexts : int
        Number of contexts. Each has its own control histograms.
    n_factors : int
        Number of factors of the latent response.
    n_bins : int
        Number of bins of each gene, at least 2.
    embedding_dim : int
        Number of dims of the embeddings.
    explained_share : float
        Share of the variance of the response that follows the embedding.
    concentration : float
        Concentration κ. The larger it is, the less histograms vary beyond their response.
    common : float
        Standard deviation of the steps from bin to bin of the shift that all perturbations share, in logits.
    context_shift : float
        The same of what a context adds to this shift.
    loading : float
        The same of the loadings.
    loading_smoothness : float
        Correlation of each step with the next, of the loadings and of the shifts.
    on_target : float
        Mean tilt of the histogram of the perturbed gene itself. Negative values lower its expression.
    seed : int
        The same seed gives the same screen.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        If a number of things is not a whole number, or is too small.

    See Also
    --------
    distpert.fit, distpert.datasets.renge

    Examples
    --------
    >>> screen = distpert.simulate(n_perturbations=10, n_unseen=2, n_genes=14)  # doctest: +SKIP
    >>> fit = distpert.fit(screen.adata, screen.embeddings)  # doctest: +SKIP
    """
    import jax
    import numpyro
    import pandas as pd
    import xarray as xr
    from anndata import AnnData

    from distpert.model.basis import shift_basis
    from distpert.model.design import on_target_tilts, target_indices
    from distpert.model.generative import Batch, Design, model
    from distpert.model.kernels import distances, powered_exponential
    from distpert.model.priors import Priors

    n_perturbations = check_count("n_perturbations", n_perturbations)
    n_unseen = check_count("n_unseen", n_unseen, 0)
    n_genes = check_count("n_genes", n_genes)
    n_cells = check_count("n_cells", n_cells)
    n_controls = check_count("n_controls", n_controls, 2)
    n_contexts = check_count("n_contexts", n_contexts)
    n_factors = check_count("n_factors", n_factors)
    n_bins = check_count("n_bins", n_bins, 2)
    embedding_dim = check_count("embedding_dim", embedding_dim)
    rng = np.random.default_rng(check_seed(seed))
    genes = [f"GENE{i}" for i in range(max(n_genes, n_perturbations + n_unseen))]
    perturbed = genes[: n_perturbations + n_unseen]
    genes = genes[:n_genes]
    vectors = rng.normal(size=(len(perturbed), embedding_dim))
    kernel = powered_exponential(distances(vectors, vectors), 3.0 * np.sqrt(embedding_dim), 1.0)
    eigenvalues, eigenvectors = np.linalg.eigh(kernel)

    # In control histograms, some cells are at zero and the others around a level of expression.
    bins = np.arange(n_bins) / (n_bins - 1)
    level = rng.uniform(0.1, 0.6, (n_contexts, n_genes, 1))
    bump = np.exp(-0.5 * ((bins - level) / 0.2) ** 2) + 1e-3
    zeros = rng.uniform(0.05, 0.6, (1, n_genes, 1))
    control = (1 - zeros) * bump / bump.sum(axis=-1, keepdims=True) + zeros * (bins == 0)
    design = Design(
        log_pooled=np.log(control).astype(np.float32),
        basis=shift_basis(control.mean(axis=0), loading_smoothness).astype(np.float32),
        perturbed_share=np.zeros(n_contexts, np.float32),  # the level, which is zero below, is that of the controls
        control_counts=np.zeros(control.shape, np.float32),
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=on_target_tilts(control).astype(np.float32),
        targets=target_indices(perturbed, genes),
    )

    n_groups = len(perturbed) * n_contexts
    groups = Batch(
        None,
        np.full(n_groups, n_cells),
        np.repeat(np.arange(len(perturbed)), n_contexts),
        np.tile(np.arange(n_contexts), len(perturbed)),
    )
    known = {
        "level": np.zeros((n_contexts, n_genes, n_bins - 1), np.float32),
        "common_size": np.float32(common),
        "context_size": np.float32(context_shift),
        "factor_size": np.full(n_factors, loading, np.float32),
        "direction_size": np.ones(n_bins - 1, np.float32),
        "explained_share": np.full(n_factors, explained_share, np.float32),
        "log_concentration": np.full(n_genes, np.log(concentration), np.float32),
        "tilt_mean": np.array([on_target, 0], np.float32),
        "tilt_scale": np.array([0.3, 0.1], np.float32),
    }
    story = numpyro.handlers.seed(numpyro.handlers.substitute(model, known), jax.random.key(seed))
    options = {"n_groups": n_groups, "n_factors": n_factors, "priors": Priors()}
    drawn = numpyro.handlers.trace(story).get_trace(design, groups, **options)
    expected = np.asarray(jax.nn.softmax(drawn["counts"]["fn"].base_dist.logits, axis=-1), np.float64)
    shape = (len(perturbed), n_contexts, n_genes, n_bins)
    gammas = rng.standard_gamma(np.maximum(concentration * expected, 1e-6)).reshape(shape)
    histogram = gammas / gammas.sum(axis=-1, keepdims=True)

    centers = bins * rng.uniform(2, 5, (n_genes, 1))
    contexts = [f"context{c}" for c in range(n_contexts)]
    values, labels, where = [], [], []
    for c, context in enumerate(contexts):
        for label, truth, n in [
            ("control", control[c], n_controls),
            *((label, histogram[p, c], n_cells) for p, label in enumerate(perturbed[:n_perturbations])),
        ]:
            drawn_bin = (rng.random((n, n_genes, 1)) > truth.cumsum(axis=-1)[:, :-1]).sum(axis=-1)
            values.append(np.take_along_axis(centers.T, drawn_bin, axis=0))
            if label == "control":  # two cells span the range of each gene, so counted bins equal those of the truth
                values[-1][:2] = centers.T[[0, -1]]
            labels += [label] * n
            where += [context] * n
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=[f"cell{i}" for i in range(len(labels))])
    if n_contexts > 1:
        obs["context"] = pd.Categorical(where)
    return Simulation(
        adata=AnnData(np.concatenate(values).astype(np.float32), obs=obs, var=pd.DataFrame(index=genes)),
        embeddings=pd.DataFrame(
            vectors,
            index=pd.Index(perturbed, name="gene"),
            columns=[str(dim) for dim in range(embedding_dim)],  # text, because AnnData stores no other names
        ),
        truth=xr.Dataset(
            {
                "histogram": (("perturbation", "context", "gene", "bin"), histogram),
                "response": (("perturbation", "factor"), np.asarray(drawn["response"]["value"]).T),
                "center": (("gene", "bin"), centers),
            },
            coords={"perturbation": perturbed, "context": contexts, "gene": genes},
        ),
    )
