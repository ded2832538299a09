"""Numbers of cells go by their labels, whatever holds them and in whatever order."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from distpert.predictions.cell_numbers import aligned_numbers

PERTURBATIONS, CONTEXTS = ("P", "Q+R"), ("d1", "d0")
BY_CONTEXT = [[3, 30], [5, 50]]  # as predicted: P, Q+R × d1, d0
COUNTED = pd.DataFrame(
    {"perturbation": ["R+Q", "P", "other"] * 2, "day": ["d0"] * 3 + ["d1"] * 3, "n": [50, 30, 1, 5, 3, 1]}
)


def aligned(n_cells, contexts=CONTEXTS):
    found = aligned_numbers(n_cells, PERTURBATIONS, contexts, "control")
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    "given",
    [
        {"R+Q": 5, "other": 1, "P": 3},
        pd.Series([5, 1, 3], ["R+Q", "other", "P"]),
        pd.Series([5, 1, 3], pd.CategoricalIndex(["Q+R", "other", "P"], name="perturbation")),
        pd.Series(["P"] * 3 + ["Q+R+ctrl"] * 5 + ["other"] * 9).value_counts(),
        xr.DataArray([5, 3], {"perturbation": ["Q+R", "P"]}, ["perturbation"]),
    ],
)
def test_by_perturbation(given):
    assert aligned(given) == [[3], [5]]


@pytest.mark.parametrize(
    "given",
    [
        COUNTED.set_index(["perturbation", "day"])["n"],
        COUNTED.pivot(index="perturbation", columns="day", values="n"),
        COUNTED.set_index(["day", "perturbation"])["n"].to_xarray().rename(day="context"),
    ],
)
def test_by_perturbation_and_context(given):
    assert aligned(given) == BY_CONTEXT


def test_contexts_that_are_numbers():
    table = pd.DataFrame([[50, 5], [30, 3]], ["Q+R", "P"], [0, 1])
    assert aligned(table, contexts=("1", "0")) == BY_CONTEXT


def test_what_all_share():
    assert aligned(xr.DataArray([7, 9], {"context": ["d0", "d1"]}, ["context"])) == [[9, 7]]
    assert aligned(xr.DataArray(7, {"gene": "X"})) == [[7]]


@pytest.mark.parametrize("given", [4, [3, 5], np.array([[3, 30], [5, 50]])])
def test_what_has_no_labels(given):
    assert aligned(given) is None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"P": 3}, KeyError, r"n_cells has no number for Q\+R; it has the perturbations P"),
        (pd.Series([3, 5]), KeyError, r"no number for P, Q\+R; it has the perturbations 0, 1"),
        (pd.DataFrame({"d1": [3, 5]}, PERTURBATIONS), KeyError, r"no number for d0; it has the contexts d1"),
        ({"P": 3, "Q+R": 5, "R+Q": 6}, ValueError, r"n_cells names a perturbation more than once: Q\+R"),
        (xr.DataArray([3, 5], dims="perturbation"), ValueError, r"no labels along 'perturbation': .*to_numpy\(\)"),
        (xr.DataArray([3], {"gene": ["X"]}, ["gene"]), ValueError, r"n_cells has the dimension 'gene'; only 'p"),
    ],
)
def test_labels_that_do_not_fit(given, error, message):
    with pytest.raises(error, match=message):
        aligned(given)
