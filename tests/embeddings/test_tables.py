"""Tables of embeddings: the standard form, and what is refused by name."""

import numpy as np
import pandas as pd
import pytest

from distpert.embeddings.sources import as_embeddings
from distpert.embeddings.tables import frame_from_vectors, validate_embeddings

GENES = ("KLF1", "CEBPA", "GATA1", "TP53", "MYC")


def random_frame(genes=GENES, dims=4, seed=0):
    values = np.random.default_rng(seed).normal(3.0, 2.0, size=(len(genes), dims))
    return pd.DataFrame(values, index=list(genes))


def test_the_standard_form():
    frame = validate_embeddings(random_frame().astype(np.float16).rename(columns=str))
    assert (frame.index.name, frame.columns.name) == ("gene", "dim")
    assert list(frame.columns) == ["0", "1", "2", "3"]
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(frame, random_frame().astype(np.float16))


def test_numbers_in_other_guises_are_accepted():
    integers = pd.DataFrame({"a": [1, 2], "b": [3, 4]}, index=["A", "B"])
    guises = [integers.astype(object), integers.astype("Float64"), integers.astype(np.uint8), integers]
    guises.append(integers.set_axis(["a", "a"], axis=1))
    for guise in guises:
        np.testing.assert_array_equal(validate_embeddings(guise), [[1, 3], [2, 4]])
    categorical = integers.set_index(pd.CategoricalIndex(["A", "B"]))
    assert list(validate_embeddings(categorical).index) == ["A", "B"]


def test_symbols_have_no_blanks_around_them():
    padded = random_frame().rename(index={"KLF1": " KLF1", "MYC": "MYC  "})
    pd.testing.assert_frame_equal(validate_embeddings(padded), validate_embeddings(random_frame()))
    assert as_embeddings({" A": [1.0], "B ": [2.0]}).genes == ("A", "B")
    with pytest.raises(ValueError, match="duplicated gene symbols: KLF1"):
        validate_embeddings(padded.rename(index={"MYC  ": "KLF1"}))


def changed(cell=None, **options):
    frame = random_frame()
    if cell is not None:
        frame = frame.astype(object)
        frame.iloc[1, 2] = cell
    return frame.rename(index={"CEBPA": options["index"]}) if "index" in options else frame


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (changed(index="KLF1"), r"duplicated gene symbols: KLF1\."),
        (changed(index=7), r"index must hold gene symbols, but has 7\. Set it"),
        (changed(index=None), "index must hold gene symbols, but has (None|nan)"),
        (changed(index=""), "index must hold gene symbols, but has ''"),
        (changed(index="  "), "index must hold gene symbols, but has '  '"),
        (random_frame().reset_index(drop=True), r"has 0, 1, 2, 3, 4\. Set it with frame.set_index"),
        (changed(index="KLF1+MYC"), r"combinations of genes: KLF1\+MYC"),
        (changed("0.5"), "not numbers: CEBPA .'0.5' in column 2."),
        (changed(True), "not numbers: CEBPA .True in column 2."),
        (changed(1j), "not numbers: CEBPA"),
        (random_frame() > 0, "not numbers: KLF1 .*MYC"),
        (random_frame().astype(complex), "not numbers: KLF1"),
        (changed(np.nan), r"NaN or infinite values .* for CEBPA\."),
        (changed(-np.inf), r"NaN or infinite values .* for CEBPA\."),
        (changed(1e300), r"NaN or infinite values .as float32. for CEBPA\."),
        (random_frame().mul([1, 1, 1, 1, 0], axis=0), r"all-zero vectors.*: MYC\."),
        (random_frame().iloc[:0], "no embeddings .0 genes x 4 dims."),
        (random_frame().iloc[:, :0], "no embeddings .5 genes x 0 dims."),
    ],
)
def test_invalid_tables_are_refused_by_name(frame, match):
    with pytest.raises(ValueError, match=f"genes.csv: .*{match}"):
        validate_embeddings(frame, "genes.csv")
    with pytest.raises(ValueError, match=match):
        as_embeddings(frame)


def test_a_symbol_with_a_plus_that_is_no_combination_is_accepted():
    assert "NA+K" in validate_embeddings(changed(index="NA+K")).index


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        ([1.0, 2.0, 3.0], "differ in length; most have 2 dims, but BAD has 3$"),
        ([], "but BAD has 0$"),
        (["1", "2"], "the vector of BAD must hold real numbers, but has dtype <U1"),
        ([[1.0, 2.0]], r"the vector of BAD has shape \(1, 2\), .*pass vector\[0\]"),
        ([1.0, [2.0]], "the vector of BAD has rows of different lengths: pass one vector"),
        ([None, 1.0], "the vector of BAD must hold real numbers, but has dtype object"),
        (1.0, r"the vector of BAD has shape \(\), .*pass a list of numbers"),
        (None, "the vector of BAD must hold real numbers, but has dtype object"),
        ([True, False], "the vector of BAD must hold real numbers, but has dtype bool"),
        ([1e300, 0.0], r"NaN or infinite values .* BAD\."),
        ([0, 0], r"all-zero vectors.*: BAD\."),
    ],
)
def test_invalid_vectors_are_refused_by_name(vector, match):
    with pytest.raises(ValueError, match=match):
        as_embeddings({"A": [1.0, 2.0], "BAD": vector, "B": [3.0, 4.0]})


def test_an_empty_dict_is_refused():
    with pytest.raises(ValueError, match=r"embeddings: no embeddings .0 genes"):
        as_embeddings({})


def test_frame_from_vectors_keeps_order_and_duplicates():
    frame = frame_from_vectors(["B", "A", "B"], [[1, 2], (3.5, 4), np.array([5, 6], np.float16)])
    assert list(frame.index) == ["B", "A", "B"]
    np.testing.assert_array_equal(frame, [[1, 2], [3.5, 4], [5, 6]])


def with_column(name, values, n_genes=12, whole=False):
    rng = np.random.default_rng(1)
    genes = [f"G{i}" for i in range(n_genes)]
    dims = rng.integers(0, 5, (n_genes, 3)).astype(float) if whole else rng.normal(size=(n_genes, 3))
    frame = pd.DataFrame(dims + (0 if whole else 0.3), index=genes, columns=["d0", "d1", "d2"])
    frame.iloc[:, 0] += 1  # no row of zeros
    frame.insert(1, name, values(rng, n_genes))
    return frame


ROW_NUMBERS = {
    "in order": lambda rng, n: np.arange(n),
    "shuffled": lambda rng, n: rng.permutation(n),
    "from 1, as float": lambda rng, n: np.arange(1.0, n + 1),
    "identifiers": lambda rng, n: rng.choice(120_000, n, replace=False),
}


@pytest.mark.parametrize("kind", ROW_NUMBERS)
@pytest.mark.parametrize("name", ["entrez_id", "Unnamed: 0", "d9"])
def test_columns_of_row_numbers_and_identifiers_are_refused_by_name(kind, name):
    frame = with_column(name, ROW_NUMBERS[kind])
    with pytest.raises(ValueError, match=rf"genes.csv: columns that seem to hold row numbers .*: '{name}'\. Leave"):
        validate_embeddings(frame, "genes.csv")
    assert validate_embeddings(frame.drop(columns=[name])).shape == (12, 3)  # the advice works
    # Among whole numbers too, where there are enough genes to tell.
    with pytest.raises(ValueError, match=f"'{name}'"):
        validate_embeddings(with_column(name, ROW_NUMBERS[kind], n_genes=40, whole=True))


@pytest.mark.parametrize("name", ["id", "gene_id", "EntrezID", "level_0", "index", "row_number", "hgnc_id"])
def test_columns_are_told_by_their_names_whatever_they_hold(name):
    with pytest.raises(ValueError, match=f"'{name}'"):
        validate_embeddings(with_column(name, lambda rng, n: rng.normal(size=n)))


@pytest.mark.parametrize("name", ["dim1", "PC10", "idling", "x", "V2", 7])
def test_ordinary_dimensions_are_kept(name):
    assert validate_embeddings(with_column(name, lambda rng, n: rng.normal(size=n))).shape == (12, 4)
    counts = with_column(name, lambda rng, n: rng.integers(0, 9, n), n_genes=40, whole=True)
    assert validate_embeddings(counts).shape == (40, 4)


class Tensor:
    """A tensor of another library: it has to be detached, moved and converted before numpy takes it."""

    def __init__(self, values, ready=0):
        self.values, self.ready = values, ready

    def detach(self):
        return Tensor(self.values, self.ready | 1)

    def cpu(self):
        return Tensor(self.values, self.ready | 2)

    def float(self):
        return Tensor(self.values, self.ready | 4)

    def __array__(self, dtype=None, copy=None):
        if self.ready != 7:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return np.array(self.values)


class Stubborn:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy()")


def test_tensors_are_converted_by_their_own_methods():
    found = as_embeddings({"A": Tensor([1.0, 2.0]), "B": Tensor([3.0, 5.0])})
    assert found.vectors.shape == (2, 2)
    with pytest.raises(ValueError, match=r"embeddings: the vector of B cannot be .*RuntimeError: Can't call.*detach"):
        as_embeddings({"A": [1.0, 2.0], "B": Stubborn()})


def test_small_floats_of_jax():
    jnp = pytest.importorskip("jax.numpy")
    vectors = {gene: jnp.arange(4, dtype=jnp.bfloat16) * (i + 1.5) for i, gene in enumerate("ABC")}
    np.testing.assert_allclose(frame_from_vectors("ABC", vectors.values()).loc["B"], [0, 2.5, 5, 7.5])


def test_symbols_with_a_slash_come_back_from_nested_groups():
    frame = frame_from_vectors(["A", "HLA"], [[1.0, 2.0], {"B": [3.0, 4.0], "C": {"D": [5.0, 6.0]}}])
    assert list(frame.index) == ["A", "HLA/B", "HLA/C/D"]
