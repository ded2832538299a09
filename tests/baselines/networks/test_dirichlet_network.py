"""The neural Dirichlet network: its density by scipy, its training on known shifts, and its draws in closed form."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import gammaln, softmax

import distpert
from distpert.baselines import BASELINES, Baseline, DirichletNetwork, Predictor
from distpert.baselines.networks.dirichlet_model import (
    LOG_CONCENTRATION,
    OUTPUT_SIZE,
    Architecture,
    NeuralData,
    fit_log_concentration,
    initial_values,
    log_probs,
    model,
    train,
)
from distpert.baselines.networks.residual_noise import ResidualNoise
from distpert.embeddings.sources import as_embeddings
from distpert.model.basis import shift_basis
from distpert.predictions.blocks import Block

QUICK = {"hidden": (16,), "max_epochs": 6, "n_folds": 2, "n_networks": 2, "prior_scales": (1.0,), "num_draws": 40}


def made_up(n_groups=12, n_genes=3, n_bins=4, dim=2, seed=0, n_cells=80):
    """Groups in two contexts whose histograms shift with the first coordinate of the embedding."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 0.5, (2, n_genes, n_bins))
    basis = shift_basis(softmax(base, axis=-1).mean(axis=0), 0.8)
    embedding, context = rng.normal(size=(n_groups, dim)), np.arange(n_groups) % 2
    shift = embedding[:, :1, None] * np.linspace(-1, 1, n_bins)
    probs = softmax(base[context] + shift, axis=-1)
    counts = np.array([[rng.multinomial(n_cells, gene) for gene in group] for group in probs])
    arrays = embedding, context.astype(np.int32), counts, base, basis
    arrays = [array.astype(np.float32) if array.dtype.kind == "f" else array for array in arrays]
    arrays[2] = arrays[2].astype(np.float32)
    return NeuralData(*map(jnp.asarray, arrays)), probs


def test_density_by_scipy():
    data, _ = made_up(n_groups=5)
    rng = np.random.default_rng(1)
    architecture = Architecture((3,), 0.0, 1e-3, 8)
    values = {
        name: value + rng.normal(0, 0.3, value.shape) for name, value in initial_values(data, architecture, 0).items()
    }
    weight, prior = rng.uniform(0.5, 2, 5), 0.7
    found, _ = log_density(
        model,
        (data, jnp.asarray(weight), prior),
        {"hidden": (3,), "dropout": 0.0},
        {k: jnp.asarray(v) for k, v in values.items()},
    )
    units = np.maximum(np.asarray(data.embedding) @ values["weight0"] + values["bias0"], 0)
    coordinates = np.einsum("ru,ugj->rgj", units, values["output"])
    logits = np.asarray(data.log_base)[np.asarray(data.context)] + np.einsum("rgj,gbj->rgb", coordinates, data.basis)
    a = np.exp(values["log_concentration"])[:, None] * softmax(logits, axis=-1)
    counts = np.asarray(data.counts, float)
    n, total = counts.sum(axis=-1), a.sum(axis=-1)
    each = gammaln(total) - gammaln(total + n) + (gammaln(a + counts) - gammaln(a)).sum(axis=-1)
    expected = weight @ each.sum(axis=1)
    expected += stats.norm.logpdf(values["weight0"], 0, prior / np.sqrt(2)).sum()
    expected += stats.norm.logpdf(values["bias0"], 0, prior).sum()
    expected += stats.norm.logpdf(values["output"], 0, prior * OUTPUT_SIZE / np.sqrt(3)).sum()
    expected += stats.norm.logpdf(values["log_concentration"], *LOG_CONCENTRATION).sum()
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_training_finds_a_known_shift():
    data, probs = made_up(n_groups=60, n_cells=400)
    rows, validation = np.arange(45), np.arange(45, 60)
    found = train(
        data, rows, Architecture((32,), 0.0, 3e-3, 16), prior_scale=2.0, epochs=80, seed=0, validation=validation
    )
    assert len(found.losses) == 81
    assert found.losses.min() < found.losses[0] - 0.02
    predicted = np.exp(np.asarray(log_probs(found.values, data)))[validation]
    base = softmax(np.asarray(data.log_base)[np.asarray(data.context)], axis=-1)[validation]
    assert np.abs(predicted - probs[validation]).mean() < 0.4 * np.abs(base - probs[validation]).mean()


def test_training_repeats_itself_and_stops():
    data, _ = made_up()
    options = {"prior_scale": 1.0, "validation": np.arange(9, 12), "patience": 2}
    architecture = Architecture((8,), 0.5, 0.3, 4)  # steps far too long
    one, again = (train(data, np.arange(9), architecture, epochs=60, seed=3, **options) for _ in range(2))
    np.testing.assert_array_equal(one.losses, again.losses)
    assert len(one.losses) < 61
    other = train(data, np.arange(9), architecture, epochs=60, seed=4, **options)
    assert not np.array_equal(one.losses[:3], other.losses[:3])
    untrained = train(data, np.arange(9), architecture, epochs=0, seed=3, prior_scale=1.0)
    assert (np.asarray(untrained.values["output"]) == 0).all()
    assert len(untrained.losses) == 0


def test_concentrations_of_simulated_counts():
    rng = np.random.default_rng(0)
    truth, probs = np.array([20.0, 400.0]), softmax(rng.normal(size=(200, 2, 5)), axis=-1)
    histograms = np.stack([[rng.dirichlet(truth[g] * probs[r, g]) for g in range(2)] for r in range(200)])
    counts = np.array([[rng.multinomial(150, h) for h in group] for group in histograms]).astype(np.float32)
    grid = np.linspace(0, 12, 49)
    found = fit_log_concentration(jnp.asarray(np.log(probs), jnp.float32), jnp.asarray(counts), grid)
    np.testing.assert_allclose(found, np.log(truth), atol=0.4)


@pytest.fixture(scope="module")
def fitted_network(small):
    histograms = distpert.count_histograms(small.adata)
    return DirichletNetwork(**QUICK).fit(histograms, as_embeddings(small.embeddings), seed=1)


def test_it_is_a_baseline(fitted_network):
    assert isinstance(DirichletNetwork(), Baseline)
    assert isinstance(fitted_network, Predictor)
    assert isinstance(BASELINES["neural"](), DirichletNetwork)


def test_print_out(fitted_network):
    text = repr(fitted_network)
    assert "6 perturbations, 5 genes" in text
    assert f"2; prior scale 1, {fitted_network.epochs} epochs" in text
    assert "2 networks: 1 perturbations × 5 genes, 40 draws" in repr(fitted_network.predict("GENE6"))


def test_a_prediction_does_not_depend_on_the_others(fitted_network):
    alone, both = (fitted_network.predict(labels, seed=2) for labels in (["GENE6"], ["GENE2", "GENE6"]))
    np.testing.assert_array_equal(alone.histogram()[0], both.histogram()[1])
    np.testing.assert_array_equal(alone.moments()["mean"][:, 0], both.moments()["mean"][:, 1])
    np.testing.assert_array_equal(both.select("GENE6").summary()["mean"][:, 0], both.summary()["mean"][:, 1])


@pytest.fixture(scope="module")
def without_noise(fitted_network):
    """The network, as if its errors were those of the Dirichlet distributions."""
    silent = ResidualNoise(np.zeros(5, np.float32), np.ones(6, np.float32))
    return replace(fitted_network, noise=silent)


def test_draws_of_an_unseen_perturbation(without_noise):
    """A mixture of the Dirichlet distributions of both networks."""
    fitted_network = without_noise
    prediction = fitted_network.predict("GENE6")
    many = type(prediction)(
        prediction.training, prediction.perturbations, prediction.contexts, predictor=fitted_network,
        units=prediction.units, num_draws=20_000,
    )  # fmt: skip
    drawn = many.draw(Block(0, 0, slice(0, 5))).astype(float)
    shift = [
        np.einsum("u,ugj,gbj->gb", prediction.units[m, 0], values["output"], fitted_network.basis)
        for m, values in enumerate(fitted_network.networks)
    ]
    probs = softmax(fitted_network.log_base[0] + np.stack(shift), axis=-1)
    kappa = fitted_network.concentration[:, None].astype(float)
    mean = probs.mean(axis=0)
    second = (probs**2 + probs * (1 - probs) / (kappa + 1)).mean(axis=0)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(second - mean**2), atol=0.01)
    np.testing.assert_allclose(prediction.histogram().to_numpy()[0], mean, rtol=1e-4)
    assert np.diff(prediction.histogram("wasserstein").sum("bin")) == pytest.approx(0, abs=1e-5)


def test_cells_in_training_inform_their_prediction(without_noise):
    fitted_network = without_noise
    prediction = fitted_network.predict("GENE2")
    groups = prediction.training
    row = (groups.dataset["perturbation"] == "GENE2").to_numpy()
    counts = groups.counts.to_numpy()[row][0]
    probs = fitted_network.log_base[0] + np.stack(
        [
            np.einsum("u,ugj,gbj->gb", prediction.units[m, 0], values["output"], fitted_network.basis)
            for m, values in enumerate(fitted_network.networks)
        ]
    )
    kappa = fitted_network.concentration[:, None]
    expected = (kappa * softmax(probs, axis=-1) + counts) / (kappa + 20)
    np.testing.assert_allclose(prediction.histogram().to_numpy()[0], expected.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_noise_widens_unseen_more_than_seen(fitted_network, without_noise):
    noisy = replace(
        fitted_network, noise=ResidualNoise(np.full(5, 0.5, np.float32), np.ones(6, np.float32)), num_draws=400
    )

    def widening(label):
        spread = [
            one.predict(label).moments()["mean"].std("draw") for one in (noisy, replace(without_noise, num_draws=400))
        ]
        return float((spread[0] / spread[1]).mean())

    assert widening("GENE6") > 1.3
    assert 0.9 < widening("GENE2") < widening("GENE6")


def test_same_seed_same_fit(small, fitted_network):
    again = DirichletNetwork(**QUICK).fit(fitted_network.training, as_embeddings(small.embeddings), seed=1)
    np.testing.assert_array_equal(again.predict("GENE6").histogram(), fitted_network.predict("GENE6").histogram())


def test_several_contexts_and_cross_validation(context_screen):
    scores = distpert.cross_validate(
        context_screen.adata, context_screen.embeddings, models=[DirichletNetwork(**QUICK), "pooled"], n_folds=2,
        context_key="context", folds=[0], progress_bar=False,
    )  # fmt: skip
    assert np.isfinite(scores["nll"].sel(model="neural")).any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden": ()}, "hidden must have widths"),
        ({"hidden": (8, 0)}, "hidden must have widths"),
        ({"prior_scales": ()}, "prior_scales must be numbers above 0"),
        ({"prior_scales": (-1.0,)}, "prior_scales must be numbers above 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"step_size": 0.0}, "step_size must be above 0"),
        ({"n_folds": 1}, "n_folds"),
        ({"n_networks": 0}, "n_networks"),
    ],
)
def test_wrong_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        DirichletNetwork(**setting)
