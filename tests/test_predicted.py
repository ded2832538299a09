"""Results made block by block and labeled, by hand for a prediction that says where it is."""

from dataclasses import dataclass

import numpy as np
import pytest

import distpert
from distpert.predictions.base import Predicted, quantiles_of_moments


@dataclass(frozen=True, eq=False)
class Places(Predicted):
    """Predicts 100 p + 10 c + g, plus the draw / 10."""

    training: distpert.Histograms
    perturbations: tuple[str, ...] = ("P", "Q+R")
    contexts: tuple[str, ...] = ("context1", "context0")
    seed: int = 0

    def moments(self, block):
        genes = np.arange(block.genes.start, block.genes.stop)
        values = 100 * block.perturbation + 10 * block.context + genes
        draws = values + np.arange(5)[:, None] / 10
        return draws, -draws


@pytest.fixture(scope="module")
def places(context_screen):
    return Places(distpert.count_histograms(context_screen.adata, context_key="context"))


EXPECTED = 100 * np.arange(2)[:, None, None] + 10 * np.arange(2)[:, None] + np.arange(14.0)


@pytest.mark.parametrize("block_genes", [512, 14, 5, 1])
def test_draws(places, monkeypatch, block_genes):
    monkeypatch.setattr("distpert.predictions.draws.BLOCK_GENES", block_genes)
    moments = places._draw_moments(places.moments, ("mean", "variance"))
    assert list(moments) == ["mean", "variance"]
    assert moments["mean"].dims == ("draw", "perturbation", "context", "gene")
    assert moments["variance"].attrs == {"long_name": "variance", "units": "log1p expression²"}
    np.testing.assert_allclose(moments["mean"], EXPECTED + np.arange(5).reshape(-1, 1, 1, 1) / 10, rtol=1e-6)
    np.testing.assert_array_equal(moments["variance"], -moments["mean"])
    assert moments["draw"].to_numpy().tolist() == [0, 1, 2, 3, 4]
    assert moments["perturbation"].to_numpy().tolist() == ["P", "Q+R"]
    assert moments["context"].to_numpy().tolist() == ["context1", "context0"]
    assert moments["gene"].to_numpy().tolist() == list(places.genes)


def test_summary(places):
    summary = places._summarize_moments(places.moments, ("mean", "variance"), 0.5)
    assert summary["mean"].dims == ("statistic", "perturbation", "context", "gene")
    assert summary["mean"].attrs == {"long_name": "mean", "units": "log1p expression"}
    for statistic, quantile in {"median": 0.2, "lower": 0.1, "upper": 0.3}.items():
        np.testing.assert_allclose(summary["mean"].sel(statistic=statistic), EXPECTED + quantile, rtol=1e-6)
    np.testing.assert_allclose(summary["variance"].sel(statistic="lower"), -EXPECTED - 0.3, rtol=1e-6)
    assert summary.attrs == {"ci_prob": 0.5}


def test_no_context_dimension_without_a_key(context_screen):
    places = Places(distpert.count_histograms(context_screen.adata), contexts=("all",))
    moments = places._draw_moments(places.moments, ("mean", "variance"))
    assert moments["mean"].dims == ("draw", "perturbation", "gene")
    assert "context" not in moments.coords


def test_random_numbers_follow_labels(places):
    from distpert.predictions.draws import Block

    def number(block, purpose=0, **changes):
        return Places(places.training, **changes)._generator(block, purpose).random()

    block, moved = Block(0, 1, slice(0, 5)), Block(1, 1, slice(0, 5))
    assert number(block) == number(moved, perturbations=("Q+R", "P"))
    others = [number(block), number(moved), number(block, 1), number(block, seed=1), number(Block(0, 0, slice(0, 5)))]
    assert len(set(others)) == 5


def test_numbers_of_cells(places):
    expected = [[3, 3], [5, 5]]
    for given in ({"R+Q": 5, "P": 3}, [3, 5], [[3], [5]], np.array([[3.0, 3.0], [5.0, 5.0]]), np.array([3, 5], object)):
        cells = places._cells(given)
        assert cells.dtype == np.int64
        assert cells.tolist() == expected
    assert places._cells(None) is None
    assert places._cells(4).tolist() == [[4, 4], [4, 4]]
    with pytest.raises(ValueError, match=r"n_cells has shape \(3,\), but must be .*: \(2, 2\)"):
        places._cells([1, 2, 3])
    with pytest.raises(ValueError, match=r"n_cells must be at least 1, but the smallest is 0"):
        places._cells({"P": 3, "Q+R": 0})


def test_quantiles_leave_out_shapes_that_are_not_defined():
    draws = np.random.default_rng(0).normal(size=(4, 9, 3))
    draws[1] = abs(draws[1])
    draws[1:, [0, 4], 1] = 0  # two points among the draws of a gene
    draws[1:, :, 2] = 0  # nothing but points
    levels = [0.5, 0.1]
    found = quantiles_of_moments(draws, levels)
    expected = np.quantile(draws, levels, axis=1)
    expected[:, 2:, 1] = np.quantile(np.delete(draws[2:, :, 1], [0, 4], axis=1), levels, axis=1)
    np.testing.assert_allclose(found, expected)
    assert (found[:, 2:, 2] == 0).all()
    # Means alone have no shapes.
    np.testing.assert_array_equal(quantiles_of_moments(draws[:1], levels), np.quantile(draws[:1], levels, axis=1))
