"""Networks against the losses' formulas and brute force, and on a screen whose embedding tells all."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import softmax
from scipy.stats import wasserstein_distance

import distpert
from distpert import scores
from distpert.baselines import (
    HistogramNetwork,
    MeanNetwork,
    MeanPrediction,
    PointPrediction,
    PooledHistogram,
    TruncatedGaussian,
)
from distpert.baselines.networks.histogram_network import HistogramHead, MeanHead
from distpert.baselines.networks.predictor import pooled_logits
from distpert.baselines.networks.training import Groups, Setting, apply_layers, batches, initial_layers, train
from distpert.baselines.networks.tuning import mean_curve, n_folds_for, search, validation_folds
from distpert.baselines.shares import TrainingShares
from distpert.embeddings.sources import as_embeddings

SMALL = {"hidden": ((8,),), "learning_rates": (3e-3,), "dropouts": (0.1,), "decays": (0.01,), "max_epochs": 4}


@pytest.fixture(scope="module")
def head_and_shares():
    rng = np.random.default_rng(0)
    control = rng.dirichlet(np.ones(6), size=(2, 3))
    width = np.array([0.5, 1.0, 0.2])
    centers = 0.3 + width[:, None] * np.arange(6)
    arrays = [jnp.asarray(array, jnp.float32) for array in (np.log(control), width, centers)]
    return arrays, control, width, centers, rng.dirichlet(np.ones(6), size=(4, 3)), rng.normal(size=(4, 18))


@pytest.mark.parametrize("loss", ["wasserstein", "cross_entropy"])
def test_loss_of_histograms(head_and_shares, loss):
    arrays, control, _, centers, shares, output = head_and_shares
    context = np.array([0, 1, 1, 0])
    found = HistogramHead(*arrays, loss=loss).losses(jnp.asarray(output, jnp.float32), context, jnp.asarray(shares))
    for r in range(4):
        probs = control[context[r]] * np.exp(output[r].reshape(3, 6))
        probs /= probs.sum(axis=-1, keepdims=True)
        if loss == "cross_entropy":
            expected = scores.negative_log_likelihood(probs, 1000 * shares[r]).mean()
        else:
            transport = [wasserstein_distance(x, x, p, n) for x, p, n in zip(centers, probs, shares[r], strict=True)]
            squared = (((probs - shares[r]) * centers).sum(axis=-1)) ** 2
            expected = np.mean(0.75 * np.array(transport) + 0.25 * squared)
        assert float(found[r]) == pytest.approx(expected, rel=1e-5)


def test_no_output_is_the_base(head_and_shares):
    arrays, control, _, centers, shares, _ = head_and_shares
    head = HistogramHead(*arrays, loss="wasserstein")
    np.testing.assert_allclose(head.predict(jnp.zeros(18)), control, rtol=1e-5)
    means = MeanHead(jnp.asarray((control * centers).sum(axis=-1), jnp.float32), arrays[2])
    np.testing.assert_allclose(means.predict(jnp.zeros(3)), (control * centers).sum(axis=-1), rtol=1e-6)
    expected = ((((shares - control[1]) * centers).sum(axis=-1)) ** 2).mean(axis=-1)
    found = means.losses(jnp.zeros((4, 3)), np.ones(4, int), jnp.asarray(shares))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_network_puts_out_zeros_before_it_is_trained():
    layers = initial_layers(jax.random.key(0), 3, (5, 4), 2)
    embedding = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)), jnp.float32)
    np.testing.assert_array_equal(apply_layers(layers, embedding), np.zeros((7, 2)))


def test_batches_hold_each_row_once():
    rows, weight = batches(np.arange(10, 17), 3)
    assert rows.shape == weight.shape == (3, 3)
    assert sorted(rows[weight == 1].tolist()) == list(range(10, 17))


@pytest.fixture
def regression():
    rng = np.random.default_rng(1)
    embedding = rng.normal(size=(40, 2))
    means = np.stack([embedding[:, 0], embedding.sum(axis=1)], axis=1)
    centers = np.array([[0.0, 10.0], [0.0, 10.0]])
    shares = np.stack([1 - (means + 5) / 10, (means + 5) / 10], axis=-1)
    groups = Groups(jnp.asarray(embedding, jnp.float32), jnp.zeros(40, jnp.int32), jnp.asarray(shares, jnp.float32))
    return MeanHead(jnp.full((1, 2), 5.0, jnp.float32), jnp.asarray(centers, jnp.float32)), groups


def loss_of(layers, head, groups, rows):
    output = apply_layers(layers, groups.embedding[rows])
    return float(head.losses(output, groups.context[rows], groups.shares[rows]).mean())


def test_training_keeps_the_best_epoch_and_stops(regression):
    head, groups = regression
    held_out, rest = np.arange(10), np.arange(10, 40)
    noisy = groups._replace(shares=groups.shares.at[rest].set(groups.shares[rest][::-1]))  # nothing to learn
    setting = Setting((16,), 0.0, 0.0, 0.02)
    options = {"epochs": 60, "batch_size": 8, "seed": 0, "validation": held_out}
    found = train(head, noisy, rest, setting, patience=5, **options)
    assert len(found.losses) == np.argmin(found.losses) + 1 + 5 < 60
    assert loss_of(found.layers, head, noisy, held_out) == pytest.approx(found.losses.min(), rel=1e-5)
    again = train(head, noisy, rest, setting, patience=5, **options)
    np.testing.assert_array_equal(found.losses, again.losses)


def test_training_learns(regression):
    head, groups = regression
    rest = np.arange(10, 40)
    found = train(head, groups, rest, Setting((32,), 0.0, 0.0, 0.01), epochs=100, batch_size=8, seed=0)
    before = loss_of(initial_layers_of(groups), head, groups, np.arange(10))
    assert loss_of(found.layers, head, groups, np.arange(10)) < 0.1 * before
    assert found.losses.size == 0


def initial_layers_of(groups):
    return initial_layers(jax.random.key(0), groups.embedding.shape[1], (32,), 2)


def test_search_walks_through_the_grids():
    grids = {"hidden": ((8, 8), (8,)), "dropouts": (0.5, 0.1), "decays": (1.0, 2.0), "learning_rates": (1e-3, 1e-2)}
    settings = HistogramNetwork(**grids)
    tried = []

    def loss(setting):
        tried.append(setting)
        return abs(setting.dropout - 0.1) + abs(setting.decay - 2) + len(setting.hidden)

    best = search(loss, settings)
    assert (best.hidden, best.dropout, best.decay, best.learning_rate) == ((8,), 0.1, 2.0, 1e-3)


def test_validation_folds():
    folds = validation_folds(250, 0.2, 0)
    assert [len(fold) for fold in folds] == [50] * 5
    assert sorted(np.concatenate(folds).tolist()) == list(range(250))
    assert [n_folds_for(folds, fewest) for fewest in (1, 50, 51, 249, 1000)] == [1, 1, 2, 5, 5]


def test_mean_of_curves_that_end_early():
    np.testing.assert_allclose(mean_curve([np.array([3.0, 1.0, 2.0]), np.array([4.0])]), [3.5, 2.5, 3.0])


@pytest.mark.slow
def test_embedding_that_tells_all():
    screen = distpert.simulate(
        n_perturbations=60, n_unseen=1, n_genes=8, n_cells=200, embedding_dim=1, explained_share=0.99, seed=0
    )
    histograms = distpert.count_histograms(screen.adata)
    embeddings, held_out = as_embeddings(screen.embeddings), list(histograms.perturbations[::4])
    training, cells = histograms.drop(held_out), histograms.select(held_out)
    options = {"hidden": ((32,),), "dropouts": (0.0,), "decays": (0.01,), "learning_rates": (3e-3,), "n_networks": 1}

    def error(baseline):
        return float(distpert.score(baseline.fit(training, embeddings).predict(held_out), cells)["rmae_mean"].mean())

    pooled = error(PooledHistogram())
    for network in (HistogramNetwork, MeanNetwork):
        assert error(network(**options)) < 0.8 * pooled
    assert error(HistogramNetwork(loss="cross_entropy", **options)) < 0.8 * pooled


@pytest.fixture
def two_days():
    """Contexts in which perturbing anything does the opposite."""
    rng = np.random.default_rng(4)
    day, p = np.repeat(["1", "2"], 300), rng.choice(["control", *"ABCDEF"], 600)
    x = rng.normal(np.where(p == "control", 0, np.where(day == "1", 1, -1))[:, None], 1, (600, 3))
    adata = AnnData(x - x.min(), obs=pd.DataFrame({"perturbation": p, "day": day}, index=np.arange(600).astype(str)))
    adata.var_names = ["X", "Y", "Z"]
    embeddings = as_embeddings({label: rng.normal(size=3) for label in "ABCDEF"})
    return distpert.count_histograms(adata, context_key="day"), embeddings


@pytest.mark.slow
def test_before_training_each_context_has_its_pooled_histogram(two_days):
    histograms, embeddings = two_days
    shares = TrainingShares(histograms)
    still = {**SMALL, "learning_rates": (1e-9,), "max_epochs": 1}
    means = MeanNetwork(**still).fit(histograms, embeddings).predict("A").means[0]
    np.testing.assert_allclose(means, (shares.pooled * histograms.centers.to_numpy()).sum(axis=-1), rtol=1e-5)
    probs = HistogramNetwork(**still).fit(histograms, embeddings).predict("A").histogram()[0]
    np.testing.assert_allclose(probs, softmax(pooled_logits(shares), axis=-1), rtol=1e-4)
    np.testing.assert_allclose(probs, shares.pooled, atol=0.15)
    assert np.abs(probs[0] - probs[1]).to_numpy().sum(axis=-1).min() > 0.3


@pytest.mark.parametrize("baseline", [HistogramNetwork(), MeanNetwork(), TruncatedGaussian()])
def test_nothing_is_known_of_validation_perturbations(two_days, baseline, monkeypatch):
    histograms, embeddings = two_days
    seen = []

    def tune(head_without, groups, perturbation, settings, *, seed):
        seen.append([np.asarray(leaf) for leaf in jax.tree.leaves(head_without(np.array([1, 4])))])
        raise InterruptedError

    monkeypatch.setattr("distpert.baselines.networks.predictor.tune", tune)
    for counted in (histograms, without_cells_of(histograms, ["B", "E"])):
        with pytest.raises(InterruptedError):
            baseline.fit(counted, embeddings)
    for before, after in zip(*seen, strict=True):
        np.testing.assert_array_equal(before, after)


def without_cells_of(histograms, labels):
    """Put all cells of some perturbations into the last bin."""
    dataset = histograms.dataset.copy(deep=True)
    rows = np.isin(dataset["perturbation"], labels)
    dataset["counts"][rows] = 0
    dataset["counts"][rows, :, -1] = dataset["n_cells"][rows]
    return replace(histograms, dataset=dataset)


@pytest.mark.parametrize("network", [HistogramNetwork, MeanNetwork])
def test_predictions(tiny, network):
    fitted = network(**SMALL, n_networks=1).fit(tiny.histograms, tiny.embeddings, seed=3)
    prediction = fitted.predict(["B+A", "F"])
    assert prediction.perturbations == ("A+B", "F")
    of_histograms = network is HistogramNetwork
    assert isinstance(prediction, PointPrediction if of_histograms else MeanPrediction)
    values = prediction.probs if of_histograms else prediction.means
    assert values.shape[:3] == (2, 3, 4)
    again = network(**SMALL, n_networks=1).fit(tiny.histograms, tiny.embeddings, seed=3).predict("A+B")
    np.testing.assert_array_equal((again.probs if of_histograms else again.means)[0], values[0])
    text = repr(fitted)
    assert "hidden 8, dropout 0.1, decay 0.01, learning rate 0.003" in text
    assert "1, averaged" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be 'wasserstein' or 'cross_entropy'"),
        ({"start": "zero"}, "start must be 'pooled' or 'control'"),
        ({"hidden": ()}, "hidden is empty"),
        ({"hidden": ((0,),)}, "width of at least 1"),
        ({"dropouts": (1.0,)}, "dropouts must be"),
        ({"decays": (-1.0,)}, "decays must be"),
        ({"learning_rates": (0.0,)}, "learning_rates must be"),
        ({"validation_share": 0.6}, "validation_share must be"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        HistogramNetwork(**options)
