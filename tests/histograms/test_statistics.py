"""Statistics of histograms against scipy, on cells that are spelled out."""

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from distpert import statistics
from distpert.histograms.statistics import STATISTICS, bimodality, named_statistic, zero_fraction


@pytest.fixture(scope="module")
def cells():
    """Cells (histogram, cell) as bins, and the centers of five histograms in seven bins."""
    rng = np.random.default_rng(0)
    bins = np.stack([rng.binomial(6, p, size=400) for p in (0.05, 0.3, 0.5, 0.7)] + [rng.choice([1, 5], 400)])
    centers = np.arange(7) * np.array([0.5, 1, 0.2, 3, 0.7])[:, None]
    return bins, centers


@pytest.fixture(scope="module")
def probs(cells):
    return np.stack([np.bincount(row, minlength=7) for row in cells[0]]) / 400


def test_are_those_of_the_cells(cells, probs):
    bins, centers = cells
    values = np.take_along_axis(centers, bins, axis=1)
    s, k = skew(values, axis=1), kurtosis(values, axis=1)
    expected = {
        "zero_fraction": (values == 0).mean(axis=1),
        "mean": values.mean(axis=1),
        "variance": values.var(axis=1),
        "skewness": s,
        "kurtosis": k,
        "bimodality": (s**2 + 1) / (k + 3),
    }
    assert set(expected) == set(STATISTICS) == set(statistics.LABELS)
    for name, function in STATISTICS.items():
        np.testing.assert_allclose(function(probs, centers), expected[name], rtol=1e-10, err_msg=name)


def test_many_histograms_at_once_in_single_precision(cells, probs):
    many = np.stack([probs, probs[::-1]]).astype(np.float32)
    for name, function in STATISTICS.items():
        found = function(many, cells[1].astype(np.float32))
        assert found.shape == (2, 5)
        np.testing.assert_allclose(found[0], function(probs, cells[1]), rtol=2e-4, atol=1e-5, err_msg=name)


def test_a_point_has_no_shape():
    probs, centers = np.array([0, 1.0, 0]), np.array([0, 1.0, 2])
    found = {name: float(function(probs, centers)) for name, function in STATISTICS.items()}
    assert {name for name, value in found.items() if np.isnan(value)} == {"skewness", "kurtosis", "bimodality"}
    assert (found["zero_fraction"], found["mean"], found["variance"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("start", "width", "bin_of_zero"),
    [
        (0.0, 0.5, 0),
        (1e-9, 0.5, 0),
        (-1.0, 0.5, 2),
        (-0.7, 0.5, 1),
        (0.24, 0.5, 0),
        (0.3, 0.5, None),
        (-2.4, 0.5, None),
    ],
)
def test_bin_that_holds_zero(start, width, bin_of_zero):
    probs = np.array([0.1, 0.2, 0.3, 0.4])
    found = zero_fraction(probs, start + width * np.arange(4))
    assert found == (0 if bin_of_zero is None else probs[bin_of_zero])


def test_zero_on_the_edge_of_two_bins_counts_once():
    assert zero_fraction(np.array([0.1, 0.2, 0.7]), np.array([-0.5, 0.5, 1.5])) == 0.2


@pytest.mark.parametrize(("value", "fraction"), [(0.0, 1), (1.3, 0)])
def test_zeros_of_a_gene_that_never_varies(value, fraction):
    """All its bins are one value."""
    assert zero_fraction(np.array([0.6, 0.3, 0.1]), np.full(3, value)) == pytest.approx(fraction)


def test_bimodality_of_known_distributions():
    """Pfister et al. 2013: 1/3 normal, 5/9 uniform and exponential, 1 on two points, whichever."""
    x = np.linspace(-8, 8, 4001)
    normal, uniform = np.exp(-(x**2) / 2), np.ones_like(x)
    assert bimodality(normal / normal.sum(), x) == pytest.approx(1 / 3, rel=1e-3)
    assert bimodality(uniform / uniform.sum(), x) == pytest.approx(5 / 9, rel=1e-3)
    t = np.linspace(0, 40, 40001)
    assert bimodality(np.exp(-t) / np.exp(-t).sum(), t) == pytest.approx(5 / 9, rel=1e-2)
    for p in (0.5, 0.01):
        assert bimodality(np.array([1 - p, p, 0]), np.array([0, 1.0, 2])) == pytest.approx(1, rel=1e-9)
    random = np.random.default_rng(0).dirichlet(np.full(7, 0.3), 500)
    found = bimodality(random, np.arange(7.0))
    assert found.max() <= 1 + 1e-9
    assert found.min() > 0


def test_names():
    assert named_statistic("variance") == (statistics.variance, "variance", "log1p expression²")

    def top_bin(probs, centers):
        return probs[..., -1]

    assert named_statistic(top_bin) == (top_bin, "top_bin", "")
    with pytest.raises(KeyError, match=r"no statistic 'median'\. Pass one of zero_fraction, mean"):
        named_statistic("median")
    with pytest.raises(TypeError, match="must be a name or a function"):
        named_statistic(3)
