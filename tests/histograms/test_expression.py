"""What is said of the scale of expression, and of matrices that cannot be counted."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix, csc_array, csc_matrix, csr_array, csr_matrix, issparse, lil_matrix

from distpert.histograms.expression import check_matrix, check_values, describe_scale, digest_values, stored_values
from distpert.histograms.streams import parts

LAYOUTS = {"dense": np.asarray, "csr": csr_matrix, "csc": csc_matrix}


def whole(matrix):
    """A matrix in memory, as its only part."""
    (part,) = parts(matrix)
    return part


@pytest.fixture(scope="module")
def counts():
    """Counts of 300 cells that differ in depth, each gene with a level of its own."""
    rng = np.random.default_rng(0)
    depth, level = rng.lognormal(0, 0.5, (300, 1)), rng.gamma(0.5, 2, 120)
    return rng.poisson(depth * level).astype(np.float64)


def _normal(counts, total):
    return counts / counts.sum(axis=1, keepdims=True) * total


def _same_depth(counts):
    return np.random.default_rng(1).poisson(counts.mean(axis=0), counts.shape)


SCALES = {
    "log1p of counts per 10,000": (lambda c: np.log1p(_normal(c, 1e4)), ""),
    "log1p of counts per million": (lambda c: np.log1p(_normal(c, 1e6)), ""),
    "log1p of counts at the median depth": (lambda c: np.log1p(_normal(c, np.median(c.sum(axis=1)))), ""),
    "log1p of depth-corrected counts": (lambda c: np.log1p(_same_depth(c)), ""),
    "log1p of few depth-corrected genes": (lambda c: np.log1p(_same_depth(c)[:, np.argsort(-c.mean(axis=0))[:8]]), ""),
    "log1p of counts": (np.log1p, "look like log1p of counts that were not normalized"),
    "counts": (lambda c: c, "reach {largest:g} and look like raw counts"),
    "few counts": (lambda c: np.minimum(c, 2), "reach 2 and look like raw counts"),
    "not logged, large": (lambda c: _normal(c, 1e4), "reach {largest:g} and are not logarithms"),
    "not logged, small": (lambda c: _normal(c, 50), "look like counts that are not logged"),
    "logged twice": (lambda c: np.log1p(np.log1p(_normal(c, 1e4))), "look like log1p taken twice"),
    "normalized and logged twice": (
        lambda c: np.log1p(_normal(np.log1p(_normal(c, 1e4)), 1e4)),
        "look like log1p of normalized counts that was normalized and logged again",
    ),
    "logged, then normalized and logged": (
        lambda c: np.log1p(_normal(np.log1p(c), 1e3)),
        "look like log1p of normalized counts that was normalized and logged again",
    ),
    "square roots": (lambda c: np.sqrt(c), "look like square roots of counts"),
    "square roots, normalized": (lambda c: np.sqrt(_normal(c, 1e3)), "look like square roots of counts"),
    "log2": (
        lambda c: np.log2(1 + _normal(c, 1e4)),
        "look like log2 of counts, where the natural logarithm is expected",
    ),
    "log10": (
        lambda c: np.log10(1 + _normal(c, 1e4)),
        "look like log10 of counts, where the natural logarithm is expected",
    ),
    "imputed": (lambda c: np.log1p(c + np.random.default_rng(3).random(c.shape)), ""),
    "binary": (lambda c: np.minimum(c, 1), ""),
    "at most 1": (lambda c: c / c.max(), ""),
    "zeros": (lambda c: c * 0, ""),
    "too few values to tell": (lambda c: np.sqrt(c[:5, :3]), ""),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scale", SCALES)
def test_scale(counts, scale, layout, dtype):
    transform, expected = SCALES[scale]
    values = transform(counts).astype(dtype)
    matrix = check_matrix(LAYOUTS[layout](values), "adata.X")
    found = describe_scale(matrix, np.ones(len(values), bool))
    assert found == expected.format(largest=values.max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scale_is_that_of_the_cells_kept(counts, layout):
    values = np.log1p(_normal(counts, 1e4))
    values[::2] = np.sqrt(counts[::2])
    matrix, is_even = LAYOUTS[layout](values), np.arange(len(values)) % 2 == 0
    assert describe_scale(matrix, ~is_even) == ""
    assert describe_scale(matrix, is_even) == "look like square roots of counts"
    assert describe_scale(matrix, np.zeros(len(values), bool)) == ""


def test_cells_without_counts_and_stored_zeros_tell_nothing(counts):
    values = np.log1p(_normal(counts, 1e4))
    values[:100] = 0
    matrix = csr_matrix(values)
    matrix.data[:50] = 0
    assert describe_scale(matrix, np.ones(len(values), bool)) == ""
    matrix.data = np.log1p(matrix.data)
    assert describe_scale(matrix, np.ones(len(values), bool)) == "look like log1p taken twice"


def test_large_values_are_looked_at_in_silence():
    values = np.random.default_rng(0).uniform(7, 14, (30, 20))  # expm1 twice of them is infinite
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert describe_scale(values, np.ones(30, bool)) == ""


def test_depth_is_told_from_the_chance_of_few_genes():
    """The total of few genes varies much, whether or not cells differ in depth."""
    rng = np.random.default_rng(0)
    level, depth = np.full(12, 1.0), rng.lognormal(0, 0.6, (200, 1))
    alike, differing = rng.poisson(level, (200, 12)), rng.poisson(level * depth)
    assert alike.sum(axis=1).std() > 0.25 * alike.sum(axis=1).mean()
    assert describe_scale(np.log1p(alike), np.ones(200, bool)) == ""
    assert describe_scale(np.log1p(differing), np.ones(200, bool)).endswith("not normalized")
    assert describe_scale(np.log1p(differing[:, :1]), np.ones(200, bool)) == ""  # one gene has no covariance


CONVERSIONS = {
    "COO": (coo_matrix, "coo_matrix", "tocsr()"),
    "LIL": (lil_matrix, "lil_matrix", "tocsr()"),
    "masked array": (lambda x: np.ma.masked_array(x, mask=x == 0), "MaskedArray", "filled(0)"),
    "DataFrame": (pd.DataFrame, "DataFrame", "to_numpy()"),
}


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_conversion_named_for_other_layouts_works(kind):
    make, name, call = CONVERSIONS[kind]
    adata = SimpleNamespace(layers={"log": make(np.eye(6, 3))})  # some anndata convert or refuse such layers
    with pytest.raises(TypeError) as refused:
        check_matrix(adata.layers["log"], "adata.layers['log']")
    message = str(refused.value)
    assert message.startswith(f"adata.layers['log'] is a {name}. It must be a numpy array, a scipy.sparse CSR or CSC")
    code = message.rpartition(": ")[2]
    assert code == f"adata.layers['log'] = adata.layers['log'].{call}"
    exec(code, {"adata": adata})
    matrix = check_matrix(adata.layers["log"], "adata.layers['log']")
    np.testing.assert_array_equal(matrix.toarray() if issparse(matrix) else matrix, np.eye(6, 3))


def test_conversion_of_objects_by_what_they_can_do():
    class Lazy:
        def compute(self):
            return np.eye(2)

    with pytest.raises(TypeError, match=r"adata.X is a Lazy\. .*: adata.X = adata.X.compute\(\)$"):
        check_matrix(Lazy(), "adata.X")
    with pytest.raises(TypeError, match=r"adata.X is a list\. .*: adata.X = numpy.asarray\(adata.X\)$"):
        check_matrix([[1.0]], "adata.X")


@pytest.mark.parametrize("layout", [csr_matrix, csr_array, csc_matrix, csc_array, np.asarray])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_matrices_that_are_taken_as_they_are(layout, dtype):
    matrix = layout(np.eye(6, 3).astype(dtype))
    found = check_matrix(matrix, "adata.X")
    data, before = (values.data if issparse(values) else values for values in (found, matrix))
    assert np.shares_memory(data, before)
    assert found.dtype == dtype
    check_values(whole(found), ("x", "y", "z"), "adata.X")


def test_types_that_are_not_real_numbers():
    for matrix in (np.eye(3).astype(complex), np.eye(3).astype(object), np.eye(3).astype(str)):
        with pytest.raises(
            TypeError, match=r"^adata.X has dtype .*\. Convert it: adata.X = adata.X.astype\('float32'\)$"
        ):
            check_matrix(matrix, "adata.X")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stored_values(layout):
    values = stored_values(LAYOUTS[layout](np.eye(4, 3)))
    assert values.sum() == 3
    assert values.size == (12 if layout == "dense" else 3)


@pytest.mark.parametrize("chunk", [4, 2**17])
def test_digest_of_values_is_that_of_the_data_in_any_layout(counts, monkeypatch, chunk):
    monkeypatch.setattr("distpert.histograms.expression.CHUNK_VALUES", chunk)
    values = counts[:20, :7]
    stored_zero = csr_matrix(np.where(values == 0, 99, values))
    stored_zero.data[stored_zero.data == 99] = 0
    layouts = [values, values.astype(np.float32), np.asfortranarray(values), stored_zero]
    layouts += [layout(values) for layout in (csr_matrix, csr_array, csc_matrix, csc_array)]
    (digest,) = {digest_values(matrix) for matrix in layouts}
    assert len(digest) == 16
    others = [values[::-1], values[:, ::-1], values.T, values * 2, values[:19]]
    others.append(values.copy())
    others[-1][3, 2] += 1e-9
    assert len({digest, *map(digest_values, others)}) == 1 + len(others)
    assert {digest_values(csc_matrix(other)) for other in others} == set(map(digest_values, others))
