"""The contract of predictions, on two of a user's own: one that says where it is, and one with whole histograms."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import distpert
from distpert.baselines import PointPrediction
from distpert.predictions.blocks import Block
from distpert.predictions.cell_numbers import numbers_of_cells
from distpert.predictions.draws import sample_histograms, sample_replicates
from distpert.predictions.moment_prediction import Answers, MomentPrediction, quantiles_of_moments
from distpert.training.groups import TrainingGroups

NUMBER = {"P": 0, "Q+R": 1, "context1": 0, "context0": 1}


@dataclass(frozen=True, eq=False, repr=False)
class Places(MomentPrediction):
    """Predicts 100 p + 10 c + g, plus the draw / 10; its variance is the negative of that."""

    perturbations: tuple[str, ...] = ("P", "Q+R")
    contexts: tuple[str, ...] = ("context1", "context0")

    kind: ClassVar[str] = "places"

    @property
    def moment_names(self):
        return ("mean", "variance")

    def values(self, perturbation, context):
        number = 100 * NUMBER[self.perturbations[perturbation]] + 10 * NUMBER.get(self.contexts[context], 0)
        return number + np.arange(len(self.genes))

    def draw_moments(self, block, n_cells=None):
        draws = self.values(block.perturbation, block.context)[block.genes] + np.arange(5)[:, None] / 10
        return np.stack([draws, -draws])

    def answers(self, n_cells):
        return lambda p, c: Answers(self.values(p, c), np.stack([self.values(p, c), -self.values(p, c)]))

    def select_position(self, perturbation, context):
        return replace(self, perturbations=(self.perturbations[perturbation],), contexts=(self.contexts[context],))


class DrawnControls(distpert.HistogramPrediction):
    """Predicts that nothing happens, as far as so many controls tell. It has no more than is needed."""

    kind = "baseline"

    def draw(self, block, n_cells=None):
        groups = TrainingGroups(self.training)
        context = groups.contexts.index(self.contexts[block.context])
        control = groups.smoothed_control[context, block.genes].astype(np.float32)
        concentration = np.full(len(control), groups.n_control[context], np.float32)
        draws = sample_histograms(self.generator(block), np.repeat(control[None], 60, axis=0), concentration)
        if n_cells is None:
            return draws
        return sample_replicates(self.generator(block, 1), draws, int(n_cells[block.perturbation, block.context]))

    def select_position(self, perturbation, context):
        return replace(self, perturbations=(self.perturbations[perturbation],), contexts=(self.contexts[context],))


@pytest.fixture(scope="module")
def places(context_screen):
    return Places(distpert.count_histograms(context_screen.adata, context_key="context"))


@pytest.fixture(scope="module")
def controls(context_screen):
    """Of perturbations that its training has not seen."""
    training = distpert.count_histograms(context_screen.adata, context_key="context").drop(["GENE1", "GENE3"])
    return DrawnControls(training, ("GENE1", "GENE3"), training.contexts, seed=4)


EXPECTED = 100 * np.arange(2)[:, None, None] + 10 * np.arange(2)[:, None] + np.arange(14.0)


@pytest.mark.parametrize("block_genes", [512, 14, 5, 1])
def test_draws(places, monkeypatch, block_genes):
    monkeypatch.setattr("distpert.predictions.blocks.BLOCK_GENES", block_genes)
    moments = places.moments()
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
    summary = places.summary(0.5)
    assert summary["mean"].dims == ("statistic", "perturbation", "context", "gene")
    assert summary["mean"].attrs == {"long_name": "mean", "units": "log1p expression"}
    for statistic, quantile in {"median": 0.2, "lower": 0.1, "upper": 0.3}.items():
        np.testing.assert_allclose(summary["mean"].sel(statistic=statistic), EXPECTED + quantile, rtol=1e-6)
    np.testing.assert_allclose(summary["variance"].sel(statistic="lower"), -EXPECTED - 0.3, rtol=1e-6)
    assert summary.attrs == {"ci_prob": 0.5}


def test_no_context_dimension_without_a_key(context_screen):
    places = Places(distpert.count_histograms(context_screen.adata), contexts=("all",))
    moments = places.moments()
    assert moments["mean"].dims == ("draw", "perturbation", "gene")
    assert "context" not in moments.coords
    assert places.in_contexts() == ""


def test_random_numbers_follow_labels(places):
    def number(block, purpose=0, **changes):
        return Places(places.training, **changes).generator(block, purpose).random()

    block, moved = Block(0, 1, slice(0, 5)), Block(1, 1, slice(0, 5))
    assert number(block) == number(moved, perturbations=("Q+R", "P"))
    others = [number(block), number(moved), number(block, 1), number(block, seed=1), number(Block(0, 0, slice(0, 5)))]
    assert len(set(others)) == 5


def test_numbers_of_cells(places):
    expected = [[3, 3], [5, 5]]
    for given in ({"R+Q": 5, "P": 3}, [3, 5], [[3], [5]], np.array([[3.0, 3.0], [5.0, 5.0]]), np.array([3, 5], object)):
        cells = numbers_of_cells(places, given)
        assert cells.dtype == np.int64
        assert cells.tolist() == expected
    assert numbers_of_cells(places, None) is None
    assert numbers_of_cells(places, 4).tolist() == [[4, 4], [4, 4]]
    with pytest.raises(ValueError, match=r"n_cells has shape \(3,\), but must be .*: \(2, 2\)"):
        places.moments(n_cells=[1, 2, 3])
    with pytest.raises(ValueError, match=r"n_cells must be at least 1, but the smallest is 0"):
        places.summary(n_cells={"P": 3, "Q+R": 0})


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


# ----------------------------------------------------------------------------------------------------------- selection


def test_one_group_can_be_taken_out(places):
    one = places.select("R+Q", context="context0")
    assert (one.perturbations, one.contexts) == (("Q+R",), ("context0",))
    assert one.moments().identical(places.moments().sel(perturbation=["Q+R"], context=["context0"]))
    assert one.select("Q+R").moments().identical(one.moments())  # the only context need not be named


@pytest.mark.parametrize(
    ("perturbation", "context", "error", "message"),
    [
        ("Q", "context0", KeyError, r"'Q'"),
        (0, "context0", TypeError, r"a perturbation is named by its label, a str, not 0"),
        ("P", None, KeyError, r"several contexts, choose one with context=: context1, context0"),
        ("P", "contxt1", KeyError, r"'contxt1'.*context1"),
    ],
)
def test_groups_that_cannot_be_taken_out(places, perturbation, context, error, message):
    with pytest.raises(error, match=message):
        places.select(perturbation, context)


# ------------------------------------------------------------------------------------------- a prediction of one's own


def test_what_a_prediction_must_have(controls):
    class NoSelection(distpert.HistogramPrediction):
        kind = "baseline"
        draw = DrawnControls.draw

    for incomplete in (NoSelection, distpert.HistogramPrediction, distpert.BasePrediction):
        with pytest.raises(TypeError, match=r"abstract.*select_position"):
            incomplete(controls.training, controls.perturbations, controls.contexts)


def test_own_histograms_are_summarized(controls):
    drawn = np.stack([controls.draw(Block(p, c, slice(0, 14))) for p in (0, 1) for c in (0, 1)], axis=1)
    drawn = drawn.reshape(60, 2, 2, 14, 15)
    np.testing.assert_allclose(controls.histogram(), drawn.mean(axis=0), atol=1e-6)
    median = np.median(drawn.cumsum(axis=-1), axis=0)
    np.testing.assert_allclose(controls.histogram("wasserstein").cumsum("bin"), median, atol=1e-6)
    means = (drawn * controls.centers).sum(axis=-1)
    np.testing.assert_allclose(controls.moments()["mean"], means, rtol=1e-5)
    np.testing.assert_allclose(controls.summary(0.5)["mean"], np.quantile(means, [0.5, 0.25, 0.75], axis=0), rtol=1e-4)
    interval = controls.histogram_interval(0.8, n_cells=7)
    np.testing.assert_allclose(7 * interval.sel(statistic="median") % 0.5, 0, atol=1e-5)  # of shares of seven cells
    assert interval.dims == ("statistic", "perturbation", "context", "gene", "bin")
    one = controls.select("GENE3", "context1")
    assert one.moments(n_cells=9).identical(
        controls.moments(n_cells=9).sel(perturbation=["GENE3"], context=["context1"])
    )


def test_own_histograms_are_scored_like_any(controls, context_screen):
    """As the histogram that is the mean of the draws is, where that is the best answer."""
    table = distpert.score(controls, context_screen.adata, ceilings=False)
    point = PointPrediction(
        controls.training, controls.perturbations, controls.contexts, controls.histogram().to_numpy().astype(float)
    )
    expected = distpert.score(point, context_screen.adata, ceilings=False)
    assert set(table) == set(expected)
    for name in ("nll", "crps", "cramer", "pearson_shift_centered", "on_target_cramer"):
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-4, atol=1e-6)
    assert np.isfinite(table.to_array()).all()


def test_own_histograms_are_calibrated(controls, context_screen):
    table = distpert.calibration(controls, context_screen.adata, n_resamples=20, n_strata=2)
    assert ((table["coverage"] >= 0) & (table["coverage"] <= 1)).all()
    assert (table["spread"] > 0).all()  # it has draws
    assert np.isfinite(table["pit_cells"]).all()


def test_own_histograms_are_checked(controls, context_screen):
    """Against p-values by hand, of one group and gene."""
    check = distpert.predictive_check(controls, context_screen.adata, "mean")
    assert check.attrs["prediction"] == "baseline"
    assert check["p_value"].dims == ("perturbation", "context", "gene")
    chosen = (context_screen.adata.obs["perturbation"] == "GENE3") & (context_screen.adata.obs["context"] == "context1")
    observed = context_screen.adata.X[chosen, 5].mean(dtype=float)
    where = {"perturbation": "GENE3", "context": "context1", "gene": "GENE5"}
    replicated = controls.moments(n_cells=60)["mean"].sel(where).to_numpy()
    assert check["observed"].sel(where).item() == pytest.approx(observed, rel=1e-4)
    assert check["p_value"].sel(where).item() == pytest.approx((replicated > observed).mean(), abs=0.02)


def test_own_histograms_are_plotted(controls, context_screen):
    import matplotlib.pyplot as plt

    for observed in (None, context_screen.adata):
        ax = distpert.plots.plot_histogram(controls, "GENE3", "GENE5", context="context1", observed=observed)
        assert ax.get_title() == "GENE5: GENE3, context context1"
        plt.close(ax.figure)


def test_own_histograms_have_conformal_intervals(controls, context_screen):
    calibrating = replace(controls, perturbations=("GENE3",))
    intervals = distpert.conformalize(replace(controls, perturbations=("GENE1",)), calibrating, context_screen.adata)
    summary = intervals.summary(0.5, n_cells=20)["mean"]
    assert (summary.sel(statistic="lower") <= summary.sel(statistic="upper")).all()


def test_own_moments_are_scored(context_screen):
    """Moments without histograms: errors, and no distances."""
    training = distpert.count_histograms(context_screen.adata, context_key="context")
    cells = context_screen.adata[context_screen.adata.obs["perturbation"].isin(["GENE0", "GENE1"])].copy()
    cells.obs["perturbation"] = cells.obs["perturbation"].map({"GENE0": "P", "GENE1": "Q+R"})
    table = distpert.score(Places(training), cells, by_gene=True)
    assert {"error_mean", "error_variance"} <= set(table) and "nll" not in table
    observed = cells.X[(cells.obs["perturbation"] == "P") & (cells.obs["context"] == "context0"), 3].mean(dtype=float)
    error = table["error_mean"].sel(perturbation="P", context="context0", gene="GENE3").item()
    assert error == pytest.approx(abs(13 - observed), rel=1e-4)
