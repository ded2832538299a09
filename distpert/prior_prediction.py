"""What the model expects of perturbations before it has seen a perturbed cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
import numpyro
from jaxtyping import Float32
from numpy.typing import NDArray

from distpert.design import target_indices
from distpert.draws import (
    HISTOGRAM,
    REPLICATE,
    Block,
    Result,
    blocks,
    map_blocks,
    sample_histograms,
    sample_replicates,
)
from distpert.kernels import kernel_between
from distpert.model import Batch, Data, Design, Priors, model
from distpert.moments import MOMENTS, histogram_moments
from distpert.predicted import Drawn

if TYPE_CHECKING:
    import xarray as xr

    from distpert.fitted import Fit
    from distpert.histograms import Histograms
    from distpert.predicted import CellNumbers

# Sites that are kept. The others have a value for each gene and bin, and are drawn again, the same, when needed.
_HELD = ("explained_share", "response", "tilt_mean", "tilt_scale", "on_target", "log_concentration")
_GROUPS_AT_ONCE = 16  # of which probabilities are held, with all draws and a block's genes


@dataclass(frozen=True)
class PriorBlock(Block):
    """A block of the prior, which brings what its histograms are drawn from.

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
class PriorPrediction(Drawn):
    """Prior predictive distributions of all genes under some perturbations; made by `Fit.prior_predictive`.

    Everything in `distpert.model.model` is drawn from its prior, by numpyro and from that very function: what all
    perturbations share, loadings, explained shares, responses, tilts, concentrations. Taken from the data are the
    smoothed control histograms, bins, the kernel and the number of factors. The smoothing and the kernel have seen
    perturbed cells, so that this is a little less than a prior in the strict sense.

    Attributes
    ----------
    fit : Fit
        Whose priors, controls and kernel they are.
    perturbations, contexts : tuple of str
        What is predicted; every combination of the two.
    sites : dict of ndarray, shape (draw, ...)
        Draws of the sites of the model that are not as large as genes × bins, in the shapes that they have there:
        ``explained_share`` (factor), ``response`` (factor, perturbation), ``tilt_mean`` and ``tilt_scale`` (tilt),
        ``on_target`` (perturbation, tilt), ``log_concentration`` (gene).
    seed : int
        All randomness follows from it.
    progress_bar : bool
        Whether to show one when something takes longer than two seconds.
    """

    fit: Fit
    perturbations: tuple[str, ...]
    contexts: tuple[str, ...]
    sites: dict[str, NDArray[np.float32]]
    seed: int
    progress_bar: bool = field(default=True)

    def __repr__(self) -> str:
        contexts = f" in contexts {', '.join(self.contexts)}" if self._has_contexts else ""
        return (
            f"PriorPrediction: {len(self.perturbations)} perturbations × {len(self.genes)} genes before any perturbed "
            f"cell is seen, {self.num_draws} draws{contexts}"
        )

    @property
    def training(self) -> Histograms:
        """The counts whose bins and controls these are."""
        return self.fit.histograms

    @property
    def num_draws(self) -> int:
        """Number of prior draws."""
        return len(self.sites["response"])

    def histogram(self) -> xr.DataArray:
        """Prior mean of the bin probabilities.

        Returns
        -------
        DataArray
            (perturbation, [context,] gene, bin) probabilities that sum to one; coordinates ``bin_left`` and
            ``bin_right`` (gene, bin).
        """
        values = self._collect(lambda block: _carried(block).probs.mean(axis=0), (self.training.n_bins,))
        return self._with_bins(self._labelled(values, ("bin",)))

    def moments(self, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Prior draws of the moments of each distribution.

        Parameters
        ----------
        n_cells
            If given, the moments that this many cells drawn from each distribution would show; in the forms that
            `Prediction.moments` takes.

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each (draw, perturbation, [context,] gene),
            float32.
        """
        cells = self._cells(n_cells)
        return self._draw_moments(lambda block: self._moments(block, cells), MOMENTS)

    def summary(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Prior median and central interval of each moment.

        Parameters
        ----------
        ci_prob
            Probability that the interval holds.
        n_cells
            As in `moments`.

        Returns
        -------
        Dataset
            As `moments`, with ``statistic`` (``median``, ``lower``, ``upper``) in place of ``draw``.

        Raises
        ------
        ValueError
            If ``ci_prob`` is not between 0 and 1.
        """
        cells = self._cells(n_cells)
        return self._summarise_moments(lambda block: self._moments(block, cells), MOMENTS, ci_prob)

    # ------------------------------------------------------------------------------------------------------- internals

    def _one_group(self, perturbation: int, context: int) -> PriorPrediction:
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

    def _map(self, function: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        """Apply a function to each block; those of the same genes share one draw of what is drawn for genes."""
        from tqdm.auto import tqdm

        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        todo = sorted(blocks(*shape), key=lambda block: block.genes.start)
        with tqdm(total=len(todo), desc="prior", unit="block", disable=not self.progress_bar, delay=2) as bar:
            for _, same in groupby(todo, key=lambda block: block.genes.start):
                of_genes = list(same)
                at_once = min(_GROUPS_AT_ONCE, len(of_genes))
                for first in range(0, len(of_genes), at_once):
                    for done in map_blocks(function, self._with_probs(of_genes[first : first + at_once], at_once)):
                        bar.update()
                        yield done

    def _with_probs(self, chosen: Sequence[Block], at_once: int) -> list[PriorBlock]:
        """Draw the expected histograms of blocks of the same genes, of ``at_once`` at most."""
        genes, labels = chosen[0].genes, self.perturbations
        priors, n_factors, design = _conditions(self.fit, labels)
        part = design._replace(
            log_control=design.log_control[:, genes],
            tilts=design.tilts[:, genes],
            targets=_within(design.targets, genes),
        )
        sites = dict(self.sites, log_concentration=self.sites["log_concentration"][:, genes])
        at = np.array([(block.perturbation, self.fit.contexts.index(self.contexts[block.context])) for block in chosen])
        at = np.concatenate([at, np.repeat(at[:1], at_once - len(at), axis=0)])  # another length would compile anew
        key = jax.random.fold_in(_key(self.seed), 1 + genes.start)
        keys = jax.random.split(key, self.num_draws)
        drawn = np.asarray(_expected_histograms(keys, sites, part, at[:, 0], at[:, 1], n_factors, priors))
        concentration = np.exp(sites["log_concentration"])
        return [
            PriorBlock(block.perturbation, block.context, genes, drawn[:, group], concentration)
            for group, block in enumerate(chosen)
        ]

    def _draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Draw histograms h (draw, gene, bin), or those of so many cells."""
        block = _carried(block)
        shape = block.concentration[..., None] * block.probs  # of the Dirichlet: κ differs from draw to draw
        one = np.ones(shape.shape[1], np.float32)
        histograms = sample_histograms(self._generator(block, HISTOGRAM), shape, one)
        if n_cells is None:
            return histograms
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self._generator(block, REPLICATE), histograms, cells)

    def _moments(self, block: Block, n_cells: NDArray[np.int64] | None) -> tuple[NDArray, ...]:
        """Moments (draw, gene), of the distributions or of replicates of so many cells."""
        return histogram_moments(self._draw(block, n_cells), self.fit.centers[block.genes])


def sample_prior(fit: Fit, perturbations: Sequence[str], num_draws: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the sites that `PriorPrediction` holds, each (draw, ...) in the shape that the model gives it."""
    priors, n_factors, design = _conditions(fit, perturbations)
    drawn = _held_sites(jax.random.split(_key(seed), num_draws), design, n_factors, priors)
    return {name: np.asarray(values) for name, values in drawn.items()}


def _conditions(fit: Fit, perturbations: Sequence[str]) -> tuple[Priors, int, Design]:
    """Give priors, number of factors, and what the model conditions on for these perturbations."""
    matrix = kernel_between(perturbations, perturbations, fit.embeddings, fit.kernel)
    np.fill_diagonal(matrix, 1)
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    design = Design(
        log_control=fit.log_control,
        eigenvalues=np.maximum(eigenvalues, 0).astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=fit.tilts,
        targets=target_indices(perturbations, fit.genes),
    )
    return Priors(**fit.settings["priors"]), fit.parameters.sizes["factor"], design


def _key(seed: int) -> jax.Array:
    """Start a generator that compiles in a tenth of the time that JAX's default takes, which is most of the time."""
    return jax.random.key(seed, impl="rbg")


def _within(targets: Any, genes: slice) -> NDArray[np.int32]:
    """Positions of targets among some genes; past their end where they are others."""
    inside = (targets >= genes.start) & (targets < genes.stop)
    return np.where(inside, targets - genes.start, genes.stop - genes.start).astype(np.int32)


Trace: TypeAlias = Mapping[str, Any]


def _tell(
    key: jax.Array,
    given: Mapping[str, jax.Array],
    design: Design,
    perturbation: Data,
    context: Data,
    n_factors: int,
    priors: Priors,
) -> Trace:
    """Run the model with some sites given and the others drawn: what happens at each site, by its name."""
    n_genes, n_bins = design.tilts.shape[1], design.tilts.shape[-1]
    n_groups = len(perturbation)
    # No cells: counts that are given need not be drawn.
    counts, n_cells = np.zeros((n_groups, n_genes, n_bins), np.float32), np.zeros(n_groups, np.int32)
    batch = Batch(counts, n_cells, perturbation, context)
    story = numpyro.handlers.seed(numpyro.handlers.substitute(model, dict(given)), key)
    trace: Trace = numpyro.handlers.trace(story).get_trace(design, batch, n_groups, n_factors, priors)
    return trace


# Both draw one after the other, since loadings are large; those that nothing needs are never made.


@partial(jax.jit, static_argnames=("n_factors", "priors"))
def _held_sites(keys: jax.Array, design: Design, n_factors: int, priors: Priors) -> dict[str, jax.Array]:
    """Draw the sites that are kept, each (draw, ...)."""
    first = np.zeros(1, np.int32)

    def one_draw(key: jax.Array) -> dict[str, jax.Array]:
        trace = _tell(key, {}, design, first, first, n_factors, priors)
        return {name: trace[name]["value"] for name in _HELD}

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
    """Draw expected histograms π (draw, group, gene, bin) with the kept sites given."""

    def one_draw(given: tuple[jax.Array, dict[str, jax.Array]]) -> jax.Array:
        trace = _tell(*given, design, perturbation, context, n_factors, priors)
        return jax.nn.softmax(trace["counts"]["fn"].base_dist.logits, axis=-1)

    return jax.lax.map(one_draw, (keys, sites))


def _carried(block: Block) -> PriorBlock:
    assert isinstance(block, PriorBlock)
    return block
