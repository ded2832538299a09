"""The neural form of the model: an ensemble of networks that predict Dirichlet distributions of histograms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed
from distpert.baselines.networks.dirichlet_model import (
    Architecture,
    NeuralData,
    fit_log_concentration,
    hidden_units,
    log_probs,
    train,
)
from distpert.baselines.networks.predictor import check_networks, pooled_logits
from distpert.baselines.networks.residual_noise import ResidualNoise, learn_residual_noise
from distpert.baselines.networks.tuning import FEWEST_COMPARED, mean_curve, n_folds_for
from distpert.baselines.shares import TrainingShares
from distpert.embeddings.sources import EmbeddingSources
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.model.basis import shift_basis
from distpert.predictions.blocks import Block
from distpert.predictions.draws import (
    HISTOGRAM,
    REPLICATE,
    SHIFT,
    STRENGTH,
    expected_histograms,
    sample_histograms,
    sample_replicates,
    softmax,
)
from distpert.predictions.histogram_prediction import HistogramPrediction
from distpert.predictions.requested import requested_contexts, requested_labels
from distpert.training.groups import TrainingGroups

LOG_CONCENTRATIONS = np.linspace(0, 12, 49)  # grid of the concentrations of predictions left out


@dataclass(frozen=True, kw_only=True)
class DirichletNetwork:
    r"""A network from the embedding to a Dirichlet distribution of every gene's histogram.

    .. math::
        \pi_{pcg} = \operatorname{softmax}\big(\log h^\text{base}_{cg} + V_g \, \Delta_{\theta, g}(e_p)\big), \quad
        h_{pcg} \sim \mathrm{Dirichlet}(\kappa_g \, \pi_{pcg}), \quad n_{pcg} \sim \mathrm{Multinomial}(N_{pc}, h_{pcg})

    with normal priors on all weights, in numpyro; the posterior mode is found by jitted SVI. Shifts start from the
    pooled histogram of each context, and :math:`V_g` is the basis along the bins of the model of `distpert.fit`. All
    sources of embeddings are the input, side by side, with zeros where a source lacks a gene.

    The scale of the priors is chosen by the likelihood of training perturbations left out: 40 or more of them, of one
    or several folds. For the best scale, all folds are left out in turn, which gives the number of epochs. The
    predictions of these folds also give the concentrations :math:`\kappa_g` and random shifts of the logits, so that
    both say how far the histograms of *unseen* perturbations are from the predictions: errors of a prediction shift
    whole histograms, which a Dirichlet distribution alone cannot say. An ensemble of networks is then trained on all
    perturbations. A draw takes a network, a random shift, and a histogram from its Dirichlet distribution.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    prior_scales : tuple of float
        Prior standard deviations of weights, times the root of the number of inputs, to choose from.
    dropout : float
        Share of hidden units to drop in each step.
    step_size : float
        Of Adam.
    max_epochs : int
        Largest number of epochs.
    patience : int
        Training stops after this many epochs without a better validation loss.
    n_folds : int
        Number of folds of the training perturbations.
    batch_size : int
        Largest number of groups in a step.
    n_networks : int
        Number of networks in the ensemble.
    num_draws : int
        Number of draws of a prediction.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    distpert.fit, distpert.baselines.HistogramNetwork

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980, for the network; Lakshminarayanan, Pritzel & Blundell (2017),
    arXiv:1612.01474, for ensembles.

    Examples
    --------
    >>> network = distpert.baselines.DirichletNetwork().fit(histograms, embeddings)  # doctest: +SKIP
    >>> network.predict("NANOG").summary()  # doctest: +SKIP
    """

    hidden: tuple[int, ...] = (256,)
    prior_scales: tuple[float, ...] = (0.25, 0.12)
    dropout: float = 0.5
    step_size: float = 1e-3
    max_epochs: int = 100
    patience: int = 5
    n_folds: int = 4
    batch_size: int = 64
    n_networks: int = 3
    num_draws: int = 200

    name: ClassVar[str] = "neural"

    def __post_init__(self) -> None:
        if not self.hidden or not all(width >= 1 for width in self.hidden):
            raise ValueError(f"hidden must have widths of at least 1, not {self.hidden}")
        if not self.prior_scales or not all(0 < scale < np.inf for scale in self.prior_scales):
            raise ValueError(f"prior_scales must be numbers above 0, not {self.prior_scales}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        if not 0 < self.step_size < np.inf:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        for name in ("max_epochs", "patience", "batch_size", "n_networks", "num_draws"):
            check_count(name, getattr(self, name))
        check_count("n_folds", self.n_folds, 2)

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> DirichletPredictor:
        """Tune and train networks; see `Baseline.fit`.

        Raises
        ------
        ValueError
            If a context has no control cells, or fewer than 3 training perturbations have an embedding.

        Warns
        -----
        UserWarning
            If training perturbations have no embedding. The warning names them; the network does not learn from them.

        Examples
        --------
        >>> network = distpert.baselines.DirichletNetwork(n_networks=2)  # doctest: +SKIP
        >>> predictor = network.fit(histograms, embeddings, seed=1)  # doctest: +SKIP
        """
        started = time.perf_counter()
        embeddings = check_networks(histograms, embeddings)
        seed, training = check_seed(seed), TrainingGroups(histograms)
        known = [label for label in training.perturbations if embeddings.has(label)]
        chosen = np.flatnonzero(np.isin(training.label, known))
        perturbation = np.searchsorted(known, training.label[chosen])
        counts = training.counts[chosen].astype(np.float32)
        overall = np.average(training.pooled, axis=0, weights=training.n_control + training.n_perturbed)
        basis = shift_basis(overall, 0.8).astype(np.float32)
        vectors, context = embeddings.of(known)[perturbation], training.context[chosen].astype(np.int32)

        def data_without(left_out: NDArray[np.intp]) -> NeuralData:
            held = {known[i] for i in left_out}
            base = pooled_logits(TrainingShares(histograms.drop(held) if held else histograms))
            return NeuralData(*map(jnp.asarray, (vectors, context, counts, base.astype(np.float32), basis)))

        architecture = Architecture(self.hidden, self.dropout, self.step_size, self.batch_size)
        order = np.random.default_rng([seed, len(known)]).permutation(len(known))
        folds = np.array_split(order, min(self.n_folds, len(known)))
        held_out = [np.flatnonzero(np.isin(perturbation, fold)) for fold in folds]
        data = [data_without(fold) for fold in folds]
        tuned = self._tune(data, held_out, folds, architecture, seed)
        epochs = int(tuned.curves[tuned.prior_scale].argmin())
        rows, left_out = np.concatenate(held_out), np.concatenate(tuned.left_out)
        log_concentration = fit_log_concentration(jnp.asarray(left_out), jnp.asarray(counts[rows]), LOG_CONCENTRATIONS)
        concentration, centers = np.exp(log_concentration).astype(np.float32), histograms.centers.to_numpy()
        noise = learn_residual_noise(np.exp(left_out), counts[rows], concentration, basis, centers)
        whole = data_without(np.arange(0))
        networks = tuple(
            {
                name: np.asarray(value)
                for name, value in train(
                    whole,
                    np.arange(len(chosen)),
                    architecture,
                    prior_scale=tuned.prior_scale,
                    epochs=epochs,
                    seed=[seed, len(folds) + number],
                ).values.items()
            }
            for number in range(self.n_networks)
        )
        return DirichletPredictor(
            histograms,
            embeddings,
            networks,
            log_base=np.asarray(whole.log_base),
            basis=basis,
            concentration=concentration,
            noise=noise,
            prior_scale=tuned.prior_scale,
            epochs=epochs,
            curves=tuned.curves,
            num_draws=self.num_draws,
            seconds=time.perf_counter() - started,
        )

    def _tune(
        self,
        data: Sequence[NeuralData],
        held_out: Sequence[NDArray[np.intp]],
        folds: Sequence[NDArray[np.intp]],
        architecture: Architecture,
        seed: int,
    ) -> _Tuned:
        """Try all prior scales on the first folds, and the best one on all.

        ``data`` and ``held_out`` are those of each fold, and ``folds`` its perturbations.
        """

        def leave_out(scale: float, number: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
            one, rows = data[number], held_out[number]
            found = train(
                one,
                np.setdiff1d(np.arange(len(one.context)), rows),
                architecture,
                prior_scale=scale,
                epochs=self.max_epochs,
                seed=[seed, number],
                validation=rows,
                patience=self.patience,
            )
            some = one._replace(embedding=one.embedding[rows], context=one.context[rows])
            return found.losses, np.asarray(log_probs(found.values, some))

        n_first = n_folds_for(folds, FEWEST_COMPARED)
        tried = {scale: [leave_out(scale, number) for number in range(n_first)] for scale in self.prior_scales}
        curves = {scale: mean_curve([losses for losses, _ in of_scale]) for scale, of_scale in tried.items()}
        best = min(curves, key=lambda scale: float(curves[scale].min()))
        of_best = tried[best] + [leave_out(best, number) for number in range(n_first, len(folds))]
        curves[best] = mean_curve([losses for losses, _ in of_best])
        return _Tuned(best, curves, [predicted for _, predicted in of_best])


class _Tuned(NamedTuple):
    """The prior scale of least loss, the losses of all, and its log histograms of the groups of each fold."""

    prior_scale: float
    curves: dict[float, NDArray[np.float64]]
    left_out: list[NDArray[np.float32]]


@dataclass(frozen=True, eq=False, repr=False)
class DirichletPredictor:
    """A fitted ensemble of networks.

    Attributes
    ----------
    training : Histograms
        The counts that it was fitted to.
    embeddings : Embeddings
        Embeddings of every gene that can be predicted.
    networks : tuple of dict
        Values of the sites of each network.
    log_base : ndarray, shape (context, gene, bin)
        Logits from which shifts start.
    basis : ndarray, shape (gene, bin, direction)
        Directions along the bins.
    concentration : ndarray, shape (gene,)
        Concentrations of predictions that were left out.
    noise : ResidualNoise
        Random shifts of such predictions, beyond the concentrations.
    prior_scale, epochs
        The settings that were chosen.
    curves : dict of float to ndarray
        Validation loss before the first epoch and after each, by prior scale, in nats per cell and gene.
    num_draws : int
        Number of draws of a prediction.
    seconds : float
        Wall time of the fit, compilation included.

    See Also
    --------
    distpert.baselines.DirichletNetwork

    Examples
    --------
    >>> predictor = distpert.baselines.DirichletNetwork().fit(histograms, embeddings)  # doctest: +SKIP
    """

    training: Histograms
    embeddings: Embeddings
    networks: tuple[dict[str, NDArray[np.float32]], ...]
    log_base: NDArray[np.float32] = field(kw_only=True)
    basis: NDArray[np.float32] = field(kw_only=True)
    concentration: NDArray[np.float32] = field(kw_only=True)
    noise: ResidualNoise = field(kw_only=True)
    prior_scale: float = field(kw_only=True)
    epochs: int = field(kw_only=True)
    curves: dict[float, NDArray[np.float64]] = field(kw_only=True)
    num_draws: int = field(kw_only=True)
    seconds: float = field(kw_only=True)

    def __repr__(self) -> str:
        curve = self.curves[self.prior_scale]
        rows = [
            ("training", f"{len(self.training.perturbations):,} perturbations, {len(self.training.genes):,} genes"),
            ("networks", f"{len(self.networks)}; prior scale {self.prior_scale:g}, {self.epochs} epochs"),
            ("validation", f"{curve.min():.5g} nats per cell and gene, {curve[0]:.5g} before training"),
            ("concentration", f"{np.median(self.concentration):,.0f} for the median gene, of perturbations left out"),
            ("time", f"{self.seconds:.1f} s"),
        ]
        return "\n".join(["Fitted 'neural'", *(f"  {name:<15}{what}" for name, what in rows)])

    def predict(
        self, perturbations: str | Sequence[str], *, context: str | Sequence[str] | None = None, seed: int = 0
    ) -> DirichletPrediction:
        """Predict the distributions of all genes; see `Predictor.predict`.

        Examples
        --------
        >>> predictor.predict(["NANOG", "SOX2"]).summary()  # doctest: +SKIP
        """
        labels = requested_labels(perturbations, self.training, self.embeddings)
        contexts = requested_contexts(context, self.training)
        units = np.zeros((len(self.networks), len(labels), len(self.networks[0]["output"])), np.float32)
        for i, label in enumerate(labels):
            if not self.embeddings.has(label):
                continue  # in training, without an embedding: the base
            # One label at a time: a matrix product of several labels would differ in the last bits.
            embedding = jnp.asarray(self.embeddings.of([label]))
            for m, values in enumerate(self.networks):
                n_layers = sum(name.startswith("weight") for name in values)
                layers = [(jnp.asarray(values[f"weight{j}"]), jnp.asarray(values[f"bias{j}"])) for j in range(n_layers)]
                units[m, i] = np.asarray(hidden_units(layers, embedding, [1.0] * n_layers))[0]
        return DirichletPrediction(
            self.training, labels, contexts, predictor=self, units=units, num_draws=self.num_draws, seed=seed
        )


@dataclass(frozen=True, eq=False, repr=False)
class DirichletPrediction(HistogramPrediction):
    """Draws from an ensemble of Dirichlet distributions.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    predictor : DirichletPredictor
        The networks.
    units : ndarray, shape (network, perturbation, unit)
        Hidden units of each network.
    num_draws : int
        Number of draws, taken from the networks in turn.
    """

    predictor: DirichletPredictor = field(kw_only=True)
    units: NDArray[np.float32] = field(kw_only=True)
    num_draws: int = field(kw_only=True)

    kind: ClassVar[str] = "baseline"

    def __repr__(self) -> str:
        return (
            f"Prediction of an ensemble of {len(self.units)} networks: {len(self.perturbations)} perturbations × "
            f"{len(self.genes)} genes, {self.num_draws} draws{self.in_contexts()}"
        )

    @property
    def embeddings(self) -> Embeddings:
        """Gene embeddings that the networks use."""
        return self.predictor.embeddings

    def select_position(self, perturbation: int, context: int) -> Self:
        """Take out one group; see `BasePrediction.select_position`."""
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            units=self.units[:, [perturbation]],
        )

    def draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Draw histograms, or histograms of ``n_cells`` cells; see `HistogramPrediction.draw`."""
        drawn = sample_histograms(self.generator(block, HISTOGRAM), *self._dirichlet(block))
        if n_cells is None:
            return drawn
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self.generator(block, REPLICATE), drawn, cells)

    def histogram_of_block(self, block: Block, loss: Literal["log", "wasserstein"]) -> NDArray[np.floating]:
        """Return the best histogram for a loss; see `HistogramPrediction.histogram_of_block`."""
        if loss == "log":
            return expected_histograms(*self._dirichlet(block)).mean(axis=0)
        return super().histogram_of_block(block, loss)

    def _dirichlet(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray | None]:
        """Draw parameters: histograms (draw, gene, bin), concentrations, and counts of a group in training."""
        predictor, genes = self.predictor, block.genes
        output = np.stack([values["output"][:, genes] for values in predictor.networks])
        shift = np.einsum(
            "mu,mugj,gbj->mgb", self.units[:, block.perturbation], output, predictor.basis[genes], optimize=True
        )
        label, context = self.perturbations[block.perturbation], self.contexts[block.context]
        position = self.training.contexts.index(context)
        logits = np.resize(predictor.log_base[position, genes] + shift, (self.num_draws, *shift.shape[1:]))
        counts, rng = self._groups.counts_of(label, context), self.generator(block, SHIFT)
        concentration = predictor.concentration[genes]
        if counts is None:
            of_all_genes = self.generator(replace(block, genes=slice(0, 0)), STRENGTH)
            strength = of_all_genes.choice(predictor.noise.strengths, self.num_draws)
            logits += predictor.noise.draw(rng, predictor.basis, genes, strength)
        else:
            counts, probs = counts[genes], softmax(logits.copy())
            logits += predictor.noise.draw_given(rng, predictor.basis, genes, probs, concentration, counts)
        return softmax(logits), np.broadcast_to(concentration, logits.shape[:2]), counts

    @cached_property
    def _groups(self) -> TrainingGroups:
        return TrainingGroups(self.training)
