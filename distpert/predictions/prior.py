"""Prior predictive distributions: draws of the model before it has seen perturbed cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Literal, TypeAlias

import jax
import numpy as np
import numpyro
from jaxtyping import Float32
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.model.design import target_indices
from distpert.model.generative import Batch, Data, Design, model
from distpert.model.kernels import kernel_between
from distpert.model.priors import Priors
from distpert.posterior.posterior import Posterior
from distpert.predictions.blocks import Block, Result, blocks, map_blocks
from distpert.predictions.draws import HISTOGRAM, REPLICATE, sample_histograms, sample_replicates
from distpert.predictions.histogram_prediction import HistogramPrediction

# Sites that are stored. The others have a value for each gene and bin; they are drawn again, the same, when needed.
_STORED = (
    "common_size",
    "context_size",
    "factor_size",
    "direction_size",
    "explained_share",
    "response",
    "tilt_mean",
    "tilt_scale",
    "on_target",
    "log_concentration",
)
_GROUPS_AT_ONCE = 16  # groups with probabilities in memory, for all draws and the genes of a block


@dataclass(frozen=True)
class PriorBlock(Block):
    """A block of the prior, with the parameters of the Dirichlet of its histograms.

    Attributes
    ----------
    probs
        (draw, gene, bin) expected histograms π.
    concentration
        (draw, gene) κ.
    """

    probs: Float32[np.ndarray, "draw gene bin"]
    concentration: Float32[np.ndarray, "draw gene"]


@dataclass(frozen=True, eq=False, repr=False)
class PriorPrediction(HistogramPrediction):
    """Prior predictive distributions of all genes under some perturbations; made by `Fit.prior_predictive`.

    All parameters are drawn from their priors: the common shift, loadings, explained shares, responses, tilts and
    concentrations. The control histograms, the bins, the kernel and the number of factors come from the fit. These have
    seen perturbed cells, so this is not a prior in the strict sense.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    posterior : Posterior
        The fit, with its controls and kernel.
    priors : Priors
        Prior scales.
    sites : dict of ndarray, shape (draw, ...)
        Draws of all sites of the model except those of size genes × bins, in the shapes of the model:
        ``common_size``, ``context_size`` of several contexts, ``factor_size`` and ``explained_share`` (factor),
        ``direction_size`` (direction), ``response`` (factor, perturbation), ``tilt_mean`` and ``tilt_scale`` (tilt),
        ``on_target`` (perturbation, tilt), ``log_concentration`` (gene).

    See Also
    --------
    distpert.Fit.prior_predictive, distpert.predictive_check

    Examples
    --------
    >>> prior = fit.prior_predictive("NANOG", num_draws=400)  # doctest: +SKIP
    >>> prior.summary()  # doctest: +SKIP
    """

    posterior: Posterior = field(kw_only=True)
    priors: Priors = field(kw_only=True)
    sites: dict[str, NDArray[np.float32]] = field(kw_only=True)

    kind: ClassVar[str] = "prior"

    def __repr__(self) -> str:
        return (
            f"PriorPrediction: {len(self.perturbations)} perturbations × {len(self.genes)} genes before any perturbed "
            f"cell is seen, {self.num_draws} draws{self.in_contexts()}"
        )

    @property
    def num_draws(self) -> int:
        """Number of prior draws."""
        return len(self.sites["response"])

    @property
    def embeddings(self) -> Embeddings:
        """Gene embeddings of the fit."""
        return self.posterior.embeddings

    def select_position(self, perturbation: int, context: int) -> PriorPrediction:
        """Take out one group; see `BasePrediction.select_position`."""
        sites = self.sites
        of_one = {
            "response": sites["response"][..., [perturbation]],
            "on_target": sites["on_target"][:, [perturbation]],
        }
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            sites=sites | of_one,
        )

    def draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Draw histograms h, or histograms of ``n_cells`` cells; see `HistogramPrediction.draw`."""
        drawn = self._with_probs(block)
        shape = drawn.concentration[..., None] * drawn.probs  # κ π of the Dirichlet: κ differs between draws
        one = np.ones(shape.shape[1], np.float32)
        histograms = sample_histograms(self.generator(block, HISTOGRAM), shape, one)
        if n_cells is None:
            return histograms
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self.generator(block, REPLICATE), histograms, cells)

    def histogram_of_block(self, block: Block, loss: Literal["log", "wasserstein"]) -> NDArray[np.floating]:
        """Return the best histogram for a loss; the mean of the Dirichlet is known and needs no draws."""
        return self._with_probs(block).probs.mean(axis=0) if loss == "log" else super().histogram_of_block(block, loss)

    def map_blocks(self, function: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        """Apply a function to each block; blocks of the same genes share one draw of the parameters of genes."""
        from tqdm.auto import tqdm

        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        todo = sorted(blocks(*shape), key=lambda block: block.genes.start)
        with tqdm(total=len(todo), desc="prior", unit="block", disable=not self.progress_bar, delay=2) as bar:
            for _, same in groupby(todo, key=lambda block: block.genes.start):
                of_genes = list(same)
                at_once = min(_GROUPS_AT_ONCE, len(of_genes))
                for first in range(0, len(of_genes), at_once):
                    for done in map_blocks(function, self._draw_probs(of_genes[first : first + at_once], at_once)):
                        bar.update()
                        yield done

    def _with_probs(self, block: Block) -> PriorBlock:
        """Return a block with its expected histograms, which are drawn if it has none."""
        return block if isinstance(block, PriorBlock) else self._draw_probs([block], 1)[0]

    def _draw_probs(self, chosen: Sequence[Block], at_once: int) -> list[PriorBlock]:
        """Draw the expected histograms of at most ``at_once`` blocks of the same genes."""
        genes, posterior = chosen[0].genes, self.posterior
        design = _design(posterior, self.perturbations)
        part = design._replace(
            log_pooled=design.log_pooled[:, genes],
            basis=design.basis[genes],
            control_counts=design.control_counts[:, genes],
            tilts=design.tilts[:, genes],
            targets=_within(design.targets, genes),
        )
        sites = dict(self.sites, log_concentration=self.sites["log_concentration"][:, genes])
        context = [posterior.contexts.index(self.contexts[block.context]) for block in chosen]
        at = np.array(list(zip((block.perturbation for block in chosen), context, strict=True)))
        at = np.concatenate([at, np.repeat(at[:1], at_once - len(at), axis=0)])  # another length would compile again
        key = jax.random.fold_in(_key(self.seed), 1 + genes.start)
        keys = jax.random.split(key, self.num_draws)
        drawn = np.asarray(
            _expected_histograms(keys, sites, part, at[:, 0], at[:, 1], posterior.n_factors, self.priors)
        )
        concentration = np.exp(sites["log_concentration"])
        return [
            PriorBlock(block.perturbation, block.context, genes, drawn[:, group], concentration)
            for group, block in enumerate(chosen)
        ]


def sample_prior(
    posterior: Posterior, priors: Priors, perturbations: Sequence[str], num_draws: int, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Draw the sites that `PriorPrediction` stores, each (draw, ...) in the shape of the model."""
    keys = jax.random.split(_key(seed), num_draws)
    drawn = _stored_sites(keys, _design(posterior, perturbations), posterior.n_factors, priors)
    return {name: np.asarray(values) for name, values in drawn.items()}


def _design(posterior: Posterior, perturbations: Sequence[str]) -> Design:
    """Arrays that the model conditions on, for these perturbations."""
    matrix = kernel_between(perturbations, perturbations, posterior.embeddings, posterior.kernel)
    np.fill_diagonal(matrix, 1)
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    return Design(
        log_pooled=posterior.log_control,
        basis=posterior.parameters["basis"].to_numpy(),
        perturbed_share=np.zeros(len(posterior.contexts), np.float32),  # the level is that of the controls
        control_counts=np.zeros(posterior.log_control.shape, np.float32),
        eigenvalues=np.maximum(eigenvalues, 0).astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=posterior.tilts,
        targets=target_indices(perturbations, posterior.genes),
    )


def _key(seed: int) -> jax.Array:
    """Return a random key whose generator compiles ten times faster than the default; compiling takes most time."""
    return jax.random.key(seed, impl="rbg")


def _within(targets: Any, genes: slice) -> NDArray[np.int32]:
    """Return positions of targets among some genes; the number of these genes for a target that is not among them."""
    inside = (targets >= genes.start) & (targets < genes.stop)
    return np.where(inside, targets - genes.start, genes.stop - genes.start).astype(np.int32)


Trace: TypeAlias = Mapping[str, Any]


def _trace_model(
    key: jax.Array,
    given: Mapping[str, jax.Array],
    design: Design,
    perturbation: Data,
    context: Data,
    n_factors: int,
    priors: Priors,
) -> Trace:
    """Run the model with some sites given and the others drawn; return the trace of each site by its name."""
    n_genes, n_bins = design.tilts.shape[1], design.tilts.shape[-1]
    n_groups = len(perturbation)
    # Counts are given as zeros, so that they are not drawn.
    counts, n_cells = np.zeros((n_groups, n_genes, n_bins), np.float32), np.zeros(n_groups, np.int32)
    batch = Batch(counts, n_cells, perturbation, context)
    level = np.zeros((len(design.log_pooled), n_genes, n_bins - 1), np.float32)
    seeded = numpyro.handlers.seed(numpyro.handlers.substitute(model, {"level": level, **given}), key)
    options = {"n_groups": n_groups, "n_factors": n_factors, "priors": priors}
    trace: Trace = numpyro.handlers.trace(seeded).get_trace(design, batch, **options)
    return trace


# Both functions make draws one by one, because loadings are large. JAX does not compute sites that are not used.


@partial(jax.jit, static_argnames=("n_factors", "priors"))
def _stored_sites(keys: jax.Array, design: Design, n_factors: int, priors: Priors) -> dict[str, jax.Array]:
    """Draw the sites that are stored, each (draw, ...)."""
    first = np.zeros(1, np.int32)

    def one_draw(key: jax.Array) -> dict[str, jax.Array]:
        trace = _trace_model(key, {}, design, first, first, n_factors, priors)
        return {name: trace[name]["value"] for name in _STORED if name in trace}  # context_size: of several contexts

    return jax.lax.map(one_draw, keys)


@partial(jax.jit, static_argnames=("n_factors", "priors"))
def _expected_histograms(
    keys: jax.Array,
    sites: dict[str, jax.Array],
    design: Design,
    perturbation: jax.Array,
    context: jax.Array,
    n_factors: int,
    priors: Priors,
) -> jax.Array:
    """Draw expected histograms π (draw, group, gene, bin) with the stored sites given."""

    def one_draw(given: tuple[jax.Array, dict[str, jax.Array]]) -> jax.Array:
        trace = _trace_model(*given, design, perturbation, context, n_factors, priors)
        return jax.nn.softmax(trace["counts"]["fn"].base_dist.logits, axis=-1)

    return jax.lax.map(one_draw, (keys, sites))
