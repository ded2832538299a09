"""From AnnData to counted histograms, against a count cell by cell."""

import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix

from distpert.histograms.counting import count_histograms

LAYOUTS = [np.asarray, csr_matrix, csc_matrix]
LABELS = ("control", "control", "B", "A", "A+ctrl", "B+A", "A+B", None)


def make(
    n_cells=200,
    n_genes=5,
    seed=0,
    layout=csr_matrix,
    dtype=np.float32,
    unlabeled=True,
    contexts=("d2", "d1"),
):
    rng = np.random.default_rng(seed)
    # Thirty-seconds are exact in both types, and no bin edge falls on one: the reference needs no tolerance.
    matrix = rng.integers(1, 150, (n_cells, n_genes)) / 32 * (rng.random((n_cells, n_genes)) < 0.4)
    matrix[:, 0] = 0
    matrix[:, 1] += 1 / 32  # in every cell
    labels = np.array(LABELS if unlabeled else LABELS[:-1], dtype=object)
    obs = pd.DataFrame(
        {
            "perturbation": labels[np.arange(n_cells) % len(labels)],
            "day": np.array(contexts)[rng.integers(0, len(contexts), n_cells)],
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])
    return anndata.AnnData(layout(matrix.astype(dtype)), obs=obs, var=var)


def dense(adata):
    return np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X, dtype=np.float64)


def canonical(labels):
    names = {"A+ctrl": "A", "B+A": "A+B"}
    return np.array(["" if pd.isna(label) else names.get(label, label) for label in labels])


def brute_force(values, low, high, n_bins):
    """Bin of each value of a gene, and how many values lie beyond the bins."""
    counts, outside = np.zeros(n_bins, int), 0
    width = (high - low) / (n_bins - 1)
    for x in values:
        b = 0 if width == 0 else int(np.floor((x - low) / width + 0.5))
        counts[min(max(b, 0), n_bins - 1)] += 1
        outside += not low - width / 2 <= x <= high + width / 2
    return counts, outside


def check(histograms, adata, low, high, by_day):
    matrix, label = dense(adata), canonical(adata.obs["perturbation"])
    context = adata.obs["day"].to_numpy().astype(str) if by_day else np.full(len(label), "all")
    dataset = histograms.dataset
    groups = list(zip(dataset["perturbation"].values, dataset["context"].values, strict=True))
    present = {pair for pair in zip(label, context, strict=True) if pair[0]}
    assert groups == sorted(present, key=lambda pair: (pair[0] != "control", *pair))
    for r, (p, c) in enumerate(groups):
        cells = (label == p) & (context == c)
        assert histograms.n_cells.values[r] == cells.sum()
        for g in range(matrix.shape[1]):
            counts, outside = brute_force(matrix[cells, g], low[g], high[g], histograms.n_bins)
            assert histograms.counts.values[r, g].tolist() == counts.tolist()
            assert dataset["out_of_range"].values[r, g] == outside


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("by_day", [False, True])
def test_against_brute_force(layout, dtype, by_day):
    adata = make(layout=layout, dtype=dtype)
    with pytest.warns(UserWarning, match="25 of 200 cells have no label"):
        histograms = count_histograms(adata, context_key="day" if by_day else None, n_bins=12)
    kept = dense(adata)[adata.obs["perturbation"].notna()]
    check(histograms, adata, kept.min(axis=0), kept.max(axis=0), by_day)
    np.testing.assert_allclose(histograms.centers[:, 0], kept.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(histograms.centers[:, -1], kept.max(axis=0), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(2, 20), st.integers(0, 2**20), st.sampled_from(LAYOUTS))
def test_every_cell_is_counted_once_a_gene(cells_a_label, n_bins, seed, layout):
    adata = make(n_cells=7 * cells_a_label, n_genes=3, seed=seed, layout=layout, unlabeled=False)
    histograms = count_histograms(adata, n_bins=n_bins)
    assert (histograms.counts.sum("bin") == histograms.n_cells).all()
    assert histograms.n_cells.sum() == adata.n_obs
    assert (histograms.counts >= 0).all()
    assert not histograms.dataset["out_of_range"].any()


def test_layout_of_the_dataset():
    histograms = count_histograms(make(unlabeled=False), context_key="day", n_bins=7)
    dataset = histograms.dataset
    assert dict(dataset.sizes) == {"group": 8, "gene": 5, "bin": 7, "part": 29}
    assert dataset["counts"].dims == ("group", "gene", "bin")
    assert {name: str(dataset[name].dtype) for name in dataset} == {
        "counts": "uint8",
        "n_cells": "int64",
        "out_of_range": "uint8",
        "part_counts": "uint8",
        "part_n_cells": "int64",
        "part_context": str(dataset["context"].dtype),
    }
    assert set(dataset.coords) == {"perturbation", "context", "gene", "bin_left", "bin_right"}
    assert dataset["bin_left"].dims == dataset["bin_right"].dims == ("gene", "bin")
    names = {"perturbation_key": "perturbation", "layer": "", "gene_symbols": ""}
    assert dataset.attrs == {"control": "control", "context_key": "day", "format_version": 1, **names}
    assert dataset["perturbation"].values.tolist() == ["control"] * 2 + ["A"] * 2 + ["A+B"] * 2 + ["B"] * 2
    assert dataset["context"].values.tolist() == ["d1", "d2"] * 4
    np.testing.assert_array_equal(dataset["bin_right"].values[:, :-1], dataset["bin_left"].values[:, 1:])


def test_properties():
    histograms = count_histograms(make(unlabeled=False), n_bins=7)
    assert histograms.genes == ("g0", "g1", "g2", "g3", "g4")
    assert histograms.perturbations == ("A", "A+B", "B")
    assert histograms.contexts == ("all",)
    assert histograms.control == "control"
    assert histograms.context_key is None
    assert count_histograms(make(unlabeled=False), context_key="day").context_key == "day"
    assert histograms.constant_genes == ("g0",)
    assert histograms.n_bins == 7
    assert histograms.counts.dims == ("group", "gene", "bin")
    assert histograms.centers.dims == ("gene", "bin")
    assert histograms.widths.dims == ("gene",)
    low, high = histograms.centers.values[:, 0], histograms.centers.values[:, -1]
    np.testing.assert_allclose(histograms.widths, (high - low) / 6)


def test_constant_gene_is_all_in_its_first_bin():
    adata = make(unlabeled=False, layout=np.asarray)
    adata.X[:, 2] = 1.25
    histograms = count_histograms(adata, n_bins=4)
    assert histograms.constant_genes == ("g0", "g2")
    for gene, value in (("g0", 0), ("g2", 1.25)):
        one = histograms.dataset.sel(gene=gene)
        np.testing.assert_array_equal(one["counts"].isel(bin=0), histograms.n_cells)
        assert (one["bin_left"] == value).all()
        assert (one["bin_right"] == value).all()


def test_layer_gene_symbols_and_labels():
    adata = make(unlabeled=False, layout=np.asarray)
    expected = count_histograms(adata, context_key="day").dataset
    adata.layers["log"], adata.X = adata.X.copy(), adata.X * 0
    adata.var["symbol"] = [f"s{i}" for i in range(5)]
    adata.obs["guide"] = adata.obs.pop("perturbation").replace("control", "NT")
    got = count_histograms(
        adata, perturbation_key="guide", control="NT", context_key="day", layer="log", gene_symbols="symbol"
    ).dataset
    assert got.attrs["control"] == got["perturbation"].values[0] == "NT"
    assert got["gene"].values.tolist() == ["s0", "s1", "s2", "s3", "s4"]
    np.testing.assert_array_equal(got["counts"], expected["counts"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_held_out_cells(layout):
    train = count_histograms(make(unlabeled=False), n_bins=9)
    held_out = make(seed=1, layout=layout, unlabeled=False)
    held_out.X = layout(dense(held_out) * 1.25)
    low, high = train.centers.values[:, 0], train.centers.values[:, -1]
    for bins in (train, train.dataset):
        histograms = count_histograms(held_out, bins=bins)
        check(histograms, held_out, low, high, by_day=False)
        assert histograms.dataset["out_of_range"].sum() > 0
    for name in ("bin_left", "bin_right"):
        np.testing.assert_array_equal(histograms.dataset[name], train.dataset[name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_held_out_cells_with_genes_in_another_order(layout):
    train = count_histograms(make(unlabeled=False)[:, ["g3", "g1"]].copy())
    held_out = make(seed=1, layout=layout, unlabeled=False)
    expected = count_histograms(held_out[:, ["g3", "g1"]].copy(), bins=train)
    got = count_histograms(held_out, bins=train)
    assert got.genes == ("g3", "g1")
    xr.testing.assert_identical(got.dataset, expected.dataset)


def test_held_out_cells_need_no_control():
    adata = make(unlabeled=False)
    train = count_histograms(adata)
    held_out = adata[adata.obs["perturbation"] == "B"].copy()
    histograms = count_histograms(held_out, bins=train)
    assert histograms.perturbations == ("B",)
    np.testing.assert_array_equal(
        histograms.counts.values, train.counts.values[train.dataset["perturbation"].values == "B"]
    )
    with pytest.raises(ValueError, match="no control cells"):
        count_histograms(held_out)


def test_held_out_control_may_have_the_label_of_the_bins():
    adata = make(unlabeled=False)
    adata.obs["perturbation"] = adata.obs["perturbation"].replace("control", "NT")
    train = count_histograms(adata, control="NT")
    histograms = count_histograms(adata, bins=train)
    assert histograms.control == "NT"
    xr.testing.assert_identical(histograms.dataset, train.dataset)
    assert count_histograms(adata[adata.obs["perturbation"] == "B"].copy(), bins=train).control == "NT"


def test_genes_missing_from_held_out_cells():
    adata = make(unlabeled=False)
    with pytest.raises(KeyError, match="adata does not have these genes of bins: g0, g4"):
        count_histograms(adata[:, ["g1", "g2", "g3"]].copy(), bins=count_histograms(adata))


def test_single_cells_are_named():
    adata = make(unlabeled=False)
    adata.obs["perturbation"] = ["X", "Y"] + ["control"] * 100 + ["A"] * 98
    with pytest.warns(UserWarning, match="perturbations with fewer than 2 cells: X, Y") as caught:
        histograms = count_histograms(adata)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert histograms.perturbations == ("A", "X", "Y")


def test_warnings_point_at_the_caller():
    adata = make()
    with pytest.warns(UserWarning, match="no label") as caught:
        count_histograms(adata)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("n_bins", [1, 0, -3])
def test_too_few_bins(n_bins):
    with pytest.raises(ValueError, match=f"n_bins must be at least 2, not {n_bins}"):
        count_histograms(make(unlabeled=False), n_bins=n_bins)


def test_number_of_bins_is_whole():
    with pytest.raises(ValueError, match=r"n_bins must be a whole number of at least 2, not 7\.5"):
        count_histograms(make(unlabeled=False), n_bins=7.5)


def test_no_labels_at_all():
    train = count_histograms(make(unlabeled=False))
    adata = make(unlabeled=False)
    adata.obs["perturbation"] = None
    with (
        pytest.warns(UserWarning, match="200 of 200 cells have no label"),
        pytest.raises(ValueError, match="no cell has a perturbation label"),
    ):
        count_histograms(adata, bins=train)


def test_progress_bar(capsys):
    adata = make(unlabeled=False)
    silent = count_histograms(adata)
    assert capsys.readouterr().err == ""
    shown = count_histograms(adata, progress_bar=True)
    assert "counting: 100%" in capsys.readouterr().err
    xr.testing.assert_identical(shown.dataset, silent.dataset)


def test_the_matrix_is_left_as_it_was():
    for layout in LAYOUTS:
        adata = make(unlabeled=False, layout=layout)
        before = dense(adata)
        count_histograms(adata, bins=count_histograms(adata))
        np.testing.assert_array_equal(dense(adata), before)


def test_importing_is_light():
    heavy = "{'anndata', 'xarray', 'pandas', 'scipy', 'tqdm'}"
    code = f"import sys, distpert.histograms.counting; print(*sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
