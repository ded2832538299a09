"""Random parts of the controls: every control cell is in one, and their counts add up."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import distpert
from distpert.histograms.cell_groups import Groups
from distpert.histograms.control_parts import MOST_PARTS, ControlParts, split_controls
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import Screen


def split(groups):
    n_cells = len(groups.of_cell)
    names = pd.Index([f"cell{i}" for i in range(n_cells)])
    empty = np.zeros(n_cells, "<U1")
    return split_controls(groups, Screen(None, (), empty, empty, names, ScreenKeys(), (np.empty(0), np.empty(0))))


def groups_of(n_control, n_other=10):
    """Controls in contexts with these numbers of cells, one perturbation, one cell without a label; shuffled."""
    sizes = [*n_control, n_other]
    of_cell = np.random.default_rng(0).permutation(np.repeat([*range(len(sizes)), -1], [*sizes, 1]))
    names = np.array(["control"] * len(n_control) + ["A"])
    contexts = np.array([*map(str, range(len(n_control))), "0"])
    return Groups(names, contexts, np.array(sizes), of_cell)


@pytest.mark.parametrize("n_control", [[1000], [400, 100, 12], [3], [1], [4000, 2]])
def test_parts_are_even_and_complete(n_control):
    groups = groups_of(n_control)
    parts = split(groups)
    n_parts, n_groups = len(parts.group), len(n_control) + 1
    assert n_parts <= MOST_PARTS + len(n_control)
    for row, size in enumerate(n_control):
        of_row = parts.n_cells[parts.group == row]
        assert of_row.sum() == size
        assert of_row.max() - of_row.min() <= 1
        assert of_row.min() >= min(size, 2)
        assert set(parts.group[parts.of_cell[groups.of_cell == row] - n_groups]) == {row}
    others = groups.of_cell >= len(n_control)
    np.testing.assert_array_equal(parts.of_cell[others], groups.of_cell[others])
    np.testing.assert_array_equal(parts.of_cell[groups.of_cell == -1], -1)
    np.testing.assert_array_equal(np.bincount(parts.of_cell[parts.of_cell >= n_groups] - n_groups), parts.n_cells)


def test_no_controls_no_parts():
    groups = groups_of([])
    parts = split(groups)
    assert len(parts.group) == 0
    counts = np.arange(6, dtype=np.int32).reshape(1, 2, 3)
    np.testing.assert_array_equal(parts.add_up(counts.copy()), counts)
    np.testing.assert_array_equal(parts.of_cell, groups.of_cell)


def test_counts_of_parts_add_up_to_the_controls(tmp_path):
    rng = np.random.default_rng(1)
    values = np.log1p(rng.gamma(1.0, 2.0, (600, 5)) * (rng.random((600, 5)) < 0.6)).astype(np.float32)
    labels = rng.choice(["control", "A", "B"], 600, p=[0.6, 0.2, 0.2])
    obs = pd.DataFrame({"perturbation": labels, "day": rng.choice(["1", "2"], 600)}, index=map(str, range(600)))
    adata = AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{g}" for g in range(5)]))
    histograms = distpert.count_histograms(adata, context_key="day")
    dataset = histograms.dataset
    is_control = dataset["perturbation"].to_numpy() == "control"
    for context in ("1", "2"):
        chosen = dataset["part_context"].to_numpy() == context
        row = is_control & (dataset["context"].to_numpy() == context)
        np.testing.assert_array_equal(dataset["part_counts"][chosen].sum("part"), dataset["counts"][row][0])
        assert dataset["part_n_cells"][chosen].sum() == dataset["n_cells"][row].item()
    # By brute force, from the cells.
    edges = np.linspace(float(dataset["bin_left"][0, 0]), float(dataset["bin_right"][0, -1]), 16)
    expected, _ = np.histogram(values[(labels == "A") & (obs["day"] == "2"), 0], edges)
    row = (dataset["perturbation"].to_numpy() == "A") & (dataset["context"].to_numpy() == "2")
    np.testing.assert_array_equal(dataset["counts"][row][0, 0], expected)
    histograms.save(tmp_path / "counts.nc")
    again = distpert.load_histograms(tmp_path / "counts.nc")
    assert again.dataset.identical(dataset)
    assert histograms.drop(["A"]).dataset.sizes["part"] == dataset.sizes["part"]


def test_sums_of_parts_take_the_place_of_the_controls():
    parts = ControlParts(np.empty(0, np.intp), np.array([0, 0, 1]), np.array([2, 2, 3]))
    counts = np.array([[0], [0], [7], [1], [2], [4]], np.int32)  # two control groups, another one, three parts
    np.testing.assert_array_equal(parts.add_up(counts), [[3], [4], [7]])


def test_parts_are_random_also_of_sorted_cells():
    """Were parts runs of cells, a plate that was sorted in would make them differ."""
    groups = groups_of([640], 0)._replace(of_cell=np.zeros(640, np.intp), n_cells=np.array([640]))
    groups = groups._replace(perturbation=groups.perturbation[:1], context=groups.context[:1])
    parts = split(groups)
    share = np.bincount(parts.of_cell - 1, np.arange(640) < 320) / parts.n_cells
    assert share.std() == pytest.approx(np.sqrt(0.25 / 5), rel=0.25)
