"""Histograms of parts of the cells add up to those of all."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from anndata import AnnData

import distpert


@pytest.fixture(scope="module")
def whole():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"perturbation": np.resize(["control", "A", "B", "control", "A+B"], 60), "day": np.resize(["1", "2", "2"], 60)},
        index=[f"cell{i}" for i in range(60)],
    )
    values = np.log1p(rng.poisson(1.2, (60, 7)) * rng.lognormal(0, 0.5, (60, 1))).astype(np.float32)
    adata = AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(7)]))
    return adata, distpert.count_histograms(adata, context_key="day")


def test_shards_add_up(whole):
    adata, expected = whole
    shards = [distpert.count_histograms(adata[i::3].copy(), bins=expected, context_key="day") for i in range(3)]
    found = sum(shards[1:], shards[0])
    parts = [name for name in expected.dataset if name.startswith("part")]
    xr.testing.assert_identical(found.dataset.drop_vars(parts), expected.dataset.drop_vars(parts))
    assert found.dataset["part_n_cells"].sum() == expected.dataset["part_n_cells"].sum()
    np.testing.assert_array_equal(found.dataset["part_counts"].sum("part"), expected.dataset["part_counts"].sum("part"))


def test_groups_of_only_one_are_kept(whole):
    adata, expected = whole
    is_a = (adata.obs["perturbation"] == "A").to_numpy()
    one, other = (
        distpert.count_histograms(adata[rows].copy(), bins=expected, context_key="day") for rows in (is_a, ~is_a)
    )
    assert one.perturbations == ("A",)
    xr.testing.assert_equal((one + other).counts, expected.counts)
    xr.testing.assert_equal((other + one).n_cells, expected.n_cells)


def test_sums_do_not_overflow(whole):
    _, one = whole
    total = one
    for _ in range(40):
        total = total + one
    assert total.counts.dtype == np.uint16
    np.testing.assert_array_equal(total.counts, 41 * one.counts.astype(int))


def test_histograms_that_do_not_go_together(whole):
    adata, one = whole
    with pytest.raises(ValueError, match=r"other bins\. Count both in the same bins"):
        one + distpert.count_histograms(adata, context_key="day", bins=wider(one))
    with pytest.raises(ValueError, match="differ in their genes: G0"):
        one + distpert.count_histograms(adata, context_key="day", bins=one.dataset.isel(gene=slice(1, None)))
    with pytest.raises(ValueError, match="context_key: 'day' and ''"):
        one + distpert.count_histograms(adata, bins=one)
    with pytest.raises(TypeError, match="unsupported operand"):
        one + 3


def wider(histograms):
    return histograms.dataset.assign_coords(bin_right=histograms.dataset["bin_right"] + 1)
