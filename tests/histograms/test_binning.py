"""The kernel against a count of what lies below each edge, value by value, in float64."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csc_array, csr_array

from distpert.histograms import binning
from distpert.histograms.binning import bin_edges, count_bins, gene_ranges

LAYOUTS = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": csr_array, "csc": csc_array}


def agrees(counts, matrix, group, edges):
    """Whether the counts below every inner edge are right, up to values within rounding of the edge."""
    n_groups, n_genes, n_bins = counts.shape
    matrix = matrix.astype(np.float64)
    for r in range(n_groups):
        for g in range(n_genes):
            x = matrix[group == r, g]
            assert counts[r, g].sum() == len(x)
            near = 1e-5 * (edges[g, 1] - edges[g, 0])
            for b in range(1, n_bins):
                below = counts[r, g, :b].sum()
                if edges[g, 0] == edges[g, -1]:
                    assert below == len(x)
                else:
                    assert (x < edges[g, b] - near).sum() <= below <= (x < edges[g, b] + near).sum()
    return True


def expression(dtype):
    width = 32 if dtype == np.float32 else 64
    values = st.one_of(
        st.just(0.0),
        st.just(0.0),
        st.integers(0, 9_000_000).map(lambda i: float(dtype(i / 1e6))),
        st.floats(0, 9, width=32).map(lambda x: float(dtype(x))),
    )
    shape = st.tuples(st.integers(1, 12), st.integers(1, 4))
    assert np.dtype(dtype).itemsize * 8 == width
    return shape.flatmap(lambda s: arrays(dtype, s, elements=values))


def small_blocks():
    return mock.patch.multiple(binning, BLOCK_VALUES=10, CHUNK_VALUES=4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("blocks", ["one", "many"])
def test_ranges_and_counts(layout, dtype, blocks):
    @settings(max_examples=25, deadline=None)
    @given(expression(dtype), st.integers(2, 20), st.data())
    def check(matrix, n_bins, data):
        group = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=len(matrix), max_size=len(matrix))))
        group[0] = 2
        kept = matrix[group >= 0]
        low, high = gene_ranges(LAYOUTS[layout](matrix), group >= 0)
        np.testing.assert_array_equal(low, kept.min(axis=0))
        np.testing.assert_array_equal(high, kept.max(axis=0))
        edges = bin_edges(low, high, n_bins)
        counts, outside = count_bins(LAYOUTS[layout](matrix), group, edges)
        assert counts.dtype == np.uint8
        assert agrees(counts, matrix, group, edges)
        assert not outside.any()
        # The extremes are exactly in the end bins.
        for g in np.flatnonzero(edges[:, 0] < edges[:, -1]):
            assert counts[:, g, 0].sum() >= (kept[:, g] == low[g]).sum() > 0
            assert counts[:, g, -1].sum() >= (kept[:, g] == high[g]).sum() > 0

    if blocks == "one":
        check()
    else:
        with small_blocks():
            check()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("blocks", ["one", "many"])
def test_values_beyond_the_edges_and_chosen_columns(layout, blocks):
    rng = np.random.default_rng(3)
    matrix = rng.gamma(1, 1, (40, 6)) * (rng.random((40, 6)) < 0.6)
    group = rng.integers(-1, 3, 40)
    columns = np.array([4, 0, 5])
    low, high = np.array([0.2, -1.0, 0.3]), np.array([1.5, 2.0, 0.3])  # zeros: below, in the third bin, below
    edges = bin_edges(low, high, 5)
    with small_blocks() if blocks == "many" else mock.patch.object(binning, "BLOCK_VALUES", 10**6):
        counts, outside = count_bins(LAYOUTS[layout](matrix), group, edges, columns=columns, count_outside=True)
    chosen = matrix[:, columns]
    assert agrees(counts, chosen, group, edges)
    beyond = (chosen < edges[:, 0]) | (chosen > edges[:, -1])
    expected = np.array([beyond[group == r].sum(axis=0) for r in range(3)])
    assert expected[:, 0].min() > 0
    np.testing.assert_array_equal(outside, expected)


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(dtype, layout) for dtype in (bool, np.uint8, np.int16, np.int64) for layout in LAYOUTS]
    + [(np.float16, "C")],  # scipy has none
)
def test_other_types(dtype, layout):
    matrix = np.random.default_rng(0).integers(0, 4, (30, 3)).astype(dtype)
    group = np.arange(30) % 2
    edges = bin_edges(*gene_ranges(LAYOUTS[layout](matrix), group >= 0), 4)
    counts, _ = count_bins(LAYOUTS[layout](matrix), group, edges)
    assert agrees(counts, matrix, group, edges)


@pytest.mark.parametrize("layout", LAYOUTS.values())
@pytest.mark.parametrize("block", [2, 100])
def test_genes_stored_in_every_cell_have_their_own_minimum(layout, block):
    matrix = np.array([[3, 0, 2], [1, 1, 2], [2, 5, 2]], dtype=np.float32)
    with mock.patch.object(binning, "BLOCK_VALUES", block):
        low, high = gene_ranges(layout(matrix), np.ones(3, bool))
        assert (low.tolist(), high.tolist()) == ([1, 0, 2], [3, 5, 2])


def test_stored_zeros_are_zeros():
    matrix = csr_array(([0.0, 2.0, 1.0], [0, 0, 0], [0, 1, 2, 3, 3]), shape=(4, 1))
    low, high = gene_ranges(matrix, np.ones(4, bool))
    counts, _ = count_bins(matrix, np.zeros(4, np.intp), bin_edges(low, high, 3))
    assert (low, high, counts.tolist()) == (0, 2, [[[2, 1, 1]]])


def test_edges():
    edges = bin_edges(np.array([0.0, 1.0, 2.0]), np.array([4.0, 1.0, 3.0]), 5)
    np.testing.assert_allclose(edges[0], [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5])
    assert edges[1].tolist() == [1.0] * 6
    np.testing.assert_allclose(edges[2], [1.875, 2.125, 2.375, 2.625, 2.875, 3.125])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [1e-3, 1.0, 9.2])
def test_a_range_of_one_rounding_step(dtype, value):
    low = dtype(value)
    matrix = np.array([[low], [np.nextafter(low, dtype(10))]])
    edges = bin_edges(*gene_ranges(matrix, np.ones(2, bool)), 15)
    counts, _ = count_bins(matrix, np.zeros(2, np.intp), edges)
    # Two float32 values are a range like any other; in float64 they are one value with rounding noise.
    ends = [1, 1] if dtype == np.float32 else [2, 0]
    assert counts[0, 0, [0, -1]].tolist() == ends


@pytest.mark.parametrize("layout", LAYOUTS)
def test_progress_sums_to_the_values_visited(layout):
    matrix = LAYOUTS[layout](np.eye(9, 5))
    seen = []
    with small_blocks():
        count_bins(matrix, np.zeros(9, np.intp), bin_edges(np.zeros(5), np.ones(5), 3), progress=seen.append)
    assert sum(seen) == (45 if isinstance(matrix, np.ndarray) else 5)


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_no_dense_copy(layout):
    import tracemalloc

    matrix = LAYOUTS[layout](np.eye(2_000, 2_000, dtype=np.float32))
    tracemalloc.start()
    edges = bin_edges(*gene_ranges(matrix, np.ones(2_000, bool)), 3)
    count_bins(matrix, np.zeros(2_000, np.intp), edges)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000 * 2_000  # a quarter of what the dense matrix would take
