"""Reading embeddings: every layout gives the same table, and broken or hostile files are refused by name."""

import codecs
import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distpert.embeddings.files import read_embeddings

GENES = ["KLF1", "CEBPA", "NAN"]  # the last must not be taken for a missing name
VALUES = np.array([[0.5, -1.0], [2.25, 1e-3], [3.0, -0.125]], dtype=np.float32)
EXPECTED = pd.DataFrame(
    VALUES, index=pd.Index(GENES, name="gene", dtype=object), columns=pd.Index(["0", "1"], name="dim", dtype=object)
)


def assert_expected(found, **tolerance):
    pd.testing.assert_frame_equal(found, EXPECTED, **tolerance)


# npz


@pytest.mark.parametrize("names", ["symbols", "genes", "names"])
@pytest.mark.parametrize("table", ["emb", "embeddings", "vectors", "X"])
def test_npz_of_names_and_a_table(tmp_path, names, table):
    path = tmp_path / "e.npz"
    np.savez(path, **{names: np.array(GENES), table: VALUES, "note": np.array("free text")})
    assert_expected(read_embeddings(path))
    assert_expected(read_embeddings(str(path)))


def test_npz_widens_float16_and_narrows_float64(tmp_path):
    np.savez_compressed(tmp_path / "half.npz", symbols=GENES, emb=VALUES.astype(np.float16))
    np.savez(tmp_path / "double.npz", symbols=np.array(GENES, dtype=bytes), emb=VALUES.astype(np.float64))
    assert_expected(read_embeddings(tmp_path / "half.npz"), rtol=1e-3)
    assert_expected(read_embeddings(tmp_path / "double.npz"))


def test_npz_of_one_array_a_gene(tmp_path):
    np.savez(tmp_path / "e.npz", **dict(zip(GENES, VALUES, strict=True)))
    assert_expected(read_embeddings(tmp_path / "e.npz"))


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"symbols": GENES, "matrix": VALUES}, "expected one of symbols.*found the arrays symbols, matrix"),
        ({"emb": VALUES}, "found the arrays emb"),
        (
            {"gene_names": GENES, "table": VALUES},
            "one of symbols, .* and one of emb, .*found the arrays gene_names, table",
        ),
        ({"gene_names": np.array(GENES, dtype=object), "table": VALUES}, "expected one of symbols"),
        ({"symbols": GENES, "genes": GENES, "emb": VALUES}, "found the arrays symbols, genes, emb"),
        (
            {"symbols": GENES[:2], "emb": VALUES},
            r"'symbols' must have one symbol for each row of 'emb', but the shapes are \(2,\)",
        ),
        ({"symbols": GENES, "emb": VALUES[:, 0]}, "one symbol for each row"),
        (
            {"symbols": np.array(GENES, dtype=object), "emb": VALUES},
            "save 'symbols' as an array of str",
        ),
        ({"symbols": [1, 2, 3], "emb": VALUES}, "index must hold gene symbols, but has 1, 2, 3"),
        ({"symbols": GENES, "emb": VALUES.astype(str)}, "not numbers: KLF1"),
        ({"symbols": GENES, "emb": np.array([[{}]] * 3)}, "[Oo]bject arrays cannot be loaded"),
        ({"KLF1": [1.0, 2.0], "MYC": [1.0]}, "vectors differ in length"),
        ({"arr_0": VALUES}, "one vector for each gene; found the arrays arr_0"),
    ],
)
def test_npz_of_another_layout_is_refused(tmp_path, arrays, match):
    path = tmp_path / "e.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"e\.npz: .*{match}"):
        read_embeddings(path)


# parquet


def test_parquet_with_genes_in_index_or_column(tmp_path):
    pytest.importorskip("pyarrow")
    indexed = pd.DataFrame(VALUES, index=GENES, columns=["a", "b"])
    indexed.to_parquet(tmp_path / "index.parquet")
    indexed.rename_axis("symbol").reset_index().to_parquet(tmp_path / "column.parquet")
    indexed.assign(symbol=pd.Categorical(GENES)).to_parquet(tmp_path / "last.parquet", index=False)
    for name in ("index", "column", "last"):
        assert_expected(read_embeddings(tmp_path / f"{name}.parquet"))


def test_parquet_without_symbols_or_with_text_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(VALUES, columns=["a", "b"])
    frame.to_parquet(tmp_path / "bare.parquet")
    frame.assign(gene=GENES, note="text").to_parquet(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"bare.parquet: .*neither the index nor a column"):
        read_embeddings(tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match=r"text.parquet: .*not numbers: KLF1 .'text' in column 'note'."):
        read_embeddings(tmp_path / "text.parquet")


# text


HEADS = {
    "any numbers": ["Gene", "7", "3"],
    "words": ["gene", "d1", "d2"],
    "from 0": ["", "0", "1"],
    "from 1": ["gene", "1", "2"],
    "none": None,
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".csv.gz", ".TSV.gz"])
def test_text_with_and_without_a_header(tmp_path, suffix, head):
    separator = {".csv": ",", ".tsv": "\t", ".txt": " "}[suffix.lower().removesuffix(".gz")]
    rows = [[gene, *map(repr, map(float, vector))] for gene, vector in zip(GENES, VALUES, strict=True)]
    rows = [HEADS[head], *rows] if HEADS[head] else rows
    text = "".join(separator.join(row) + "\n" for row in rows)
    path = tmp_path / f"e{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    assert_expected(read_embeddings(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quoted.csv", '"","V1","V2"\r\n"KLF1",0.5,-1\r\n"CEBPA",2.25,1e-3\r\n"NAN",3,-.125\r\n'),
        ("byte_order_mark.csv", "\ufeffgene,a,b\nKLF1,.5,-1\n\nCEBPA,2.25,.001\nNAN,3,-.125"),
        ("shorter_header.txt", '"V1" "V2"\n"KLF1" 0.5 -1\n"CEBPA" 2.25 0.001\n"NAN" 3 -0.125\n'),
        ("commas.txt", "gene,a,b\nKLF1,.5,-1\nCEBPA,2.25,.001\nNAN,3,-.125\n"),
        ("tab_then_blanks.txt", "KLF1\t.5 -1 \nCEBPA\t2.25 .001 \nNAN\t3 -.125 \n"),
        ("word2vec.txt", "3 2\nKLF1 .5 -1\nCEBPA 2.25 .001\nNAN 3 -.125\n"),
        ("pandas.tsv", EXPECTED.to_csv(sep="\t")),
        ("pandas.csv", EXPECTED.reset_index().to_csv(index=False)),
        ("blanks.csv", "gene, a, b\nKLF1 , .5, -1\n CEBPA, 2.25, .001\nNAN, 3, -.125\n"),
    ],
)
def test_text_as_other_programs_write_it(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert_expected(read_embeddings(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("gene,a,b\nKLF1,1,2\nMYC,1,x\n", r"not numbers: MYC \('x' in column 'b'\)\."),
        ("gene,a,b\n\nKLF1,1,\n", r"not numbers: KLF1 \('' in column 'b'\)\."),
        ("gene,a,b\nKLF1,1,2\nMYC,1\nTP53,3,4\n", r"not numbers: MYC \('' in column 'b'\)\."),
        ("KLF1\nMYC,1\n", r"not numbers: KLF1 \('' in column '0'\)\."),
        ("KLF1,0.5\nMYC,1,3\nTP53,3,4\n", r"not numbers: KLF1 \('' in column '1'\)\."),
        ("KLF1\nMYC,1,3\nTP53,3,4\n", r"not numbers: KLF1 \('' in column '0'\)\."),
        ("KLF1,NA,NA\nMYC,1,3\nTP53,3,4\n", r"not numbers: KLF1 \('NA' in column '0'\)\."),
        ("KLF1,1,NA\nMYC,1,3\nTP53,3,4\n", r"not numbers: KLF1 \('NA' in column '1'\)\."),
        ("gene,a,b\nKLF1,1,2\nMYC,nan,1\n", "NaN or infinite values .* MYC"),
        ("gene,a,b\nKLF1,1,2\nMYC,1e300,1\n", "NaN or infinite values .* MYC"),
        ("gene,a,b\nKLF1,1,2\nMYC,0,0\n", "all-zero vectors.* MYC"),
        ("gene,a,b\nKLF1,1,2\nKLF1,1,2\n", "duplicated gene symbols: KLF1"),
        ("gene,a,b\n,1,2\nKLF1,1,2\n", "index must hold gene symbols, but has ''"),
        ("gene\nKLF1\nMYC\n", "no embeddings .3 genes x 0 dims."),
        ("gene,a,b\n", "fewer than two rows"),
        ("\n\n", "fewer than two rows"),
    ],
)
def test_invalid_text_is_refused_by_line_or_gene(tmp_path, text, match):
    path = tmp_path / "e.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"e\.csv: .*{match}"):
        read_embeddings(path)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("e.csv", EXPECTED.to_csv(sep=";"), r"separated by ';', .*pandas.read_csv\(path, sep=';', index_col=0\)"),
        ("e.csv", EXPECTED.to_csv(sep=";", decimal=","), "separated by ';'"),
        ("e.csv", EXPECTED.to_csv(sep="\t"), r"separated by '\\t'"),
        ("e.csv", EXPECTED.to_csv(sep=" "), "separated by ' '"),
        ("e.tsv", EXPECTED.to_csv(), "separated by ','"),
        ("e.tsv", EXPECTED.to_csv(sep=" "), "separated by ' '"),
        ("e.txt", EXPECTED.to_csv(sep=";"), "separated by ';'"),
    ],
)
def test_another_separator(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*{match}"):
        read_embeddings(tmp_path / name)


def test_genes_that_are_not_in_the_first_column(tmp_path):
    path = tmp_path / "e.csv"
    EXPECTED.reset_index().to_csv(path)
    with pytest.raises(ValueError, match=r"genes must come first, .* '0' and the second 'KLF1'\. .*index=False"):
        read_embeddings(path)
    EXPECTED.rename({"NAN": "MYC"}).T.to_csv(path)
    with pytest.raises(
        ValueError, match=r"the other columns are KLF1, CEBPA, MYC.* transpose a table of dims x genes with \.T$"
    ):
        read_embeddings(path)
    EXPECTED.reset_index(drop=True).add_prefix("d").to_csv(path)
    with pytest.raises(
        ValueError, match=r"no gene symbols in the first column, which holds 0, 1, .*columns are d0, d1"
    ):
        read_embeddings(path)


# hdf5


def test_hdf5_in_the_layout_of_uniprot(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "per-protein.h5", "w") as file:
        for name, vector in zip(["P1", "CEBPA", "A9"], VALUES, strict=True):
            file[name] = vector.astype(np.float16)
    found = read_embeddings(tmp_path / "per-protein.h5")
    assert list(found.index) == ["A9", "CEBPA", "P1"]
    found = read_embeddings(tmp_path / "per-protein.h5", rename={"P1": "KLF1", "A9": "NAN", "Q": "unused"})
    assert_expected(found.loc[GENES], rtol=1e-3)


def test_hdf5_of_another_layout_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "residue.h5", "w") as file:
        file["P1"] = VALUES
    with h5py.File(tmp_path / "group.hdf5", "w") as file:
        file["obs/P1"] = VALUES[0]
    with pytest.raises(ValueError, match=r"residue.h5: .*'P1' has shape \(3, 2\); .*not per-residue.h5"):
        read_embeddings(tmp_path / "residue.h5")
    with pytest.raises(ValueError, match=r"group.hdf5: .*'obs' is a group; expected one vector for each protein"):
        read_embeddings(tmp_path / "group.hdf5")


def test_rename_holds_for_all_layouts_and_must_fit(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("P1,1.5,2\nP2,3,4\n")
    assert list(read_embeddings(path, rename={"P2": "MYC"}).index) == ["P1", "MYC"]
    with pytest.raises(ValueError, match=r"e.csv: duplicated gene symbols: MYC"):
        read_embeddings(path, rename={"P1": "MYC", "P2": "MYC"})
    with pytest.raises(ValueError, match=r"e.csv: rename has none of the names in the file \(P1, P2\)"):
        read_embeddings(path, rename={"Q1": "MYC"})


# pickle


def write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


FORMS = {
    "lists": lambda vector: vector.tolist(),
    "tuples": lambda vector: tuple(vector.tolist()),
    "float32 arrays": lambda vector: vector,
    "big-endian arrays": lambda vector: vector.astype(">f8"),
    "strided arrays": lambda vector: np.repeat(vector, 2)[::2],
    "read-only arrays": lambda vector: np.frombuffer(vector.tobytes(), np.float32),
    "lists of numpy scalars": lambda vector: list(vector),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", FORMS)
def test_pickle_of_plain_vectors(tmp_path, form, protocol):
    content = {gene: FORMS[form](vector) for gene, vector in zip(GENES, VALUES, strict=True)}
    for suffix in (".pickle", ".pkl"):
        assert_expected(read_embeddings(write_pickle(tmp_path / f"e{suffix}", content, protocol)))


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "f2"])
def test_pickle_of_other_numbers(tmp_path, dtype):
    content = {"A": np.array([1, 2, 3], dtype), "B": np.array([4, 5, 6], dtype)}
    found = read_embeddings(write_pickle(tmp_path / "e.pkl", content))
    np.testing.assert_array_equal(found, [[1, 2, 3], [4, 5, 6]])


def test_pickle_of_numpy_1_names(tmp_path):
    stream = pickle.dumps(dict(zip(GENES, VALUES, strict=True)), protocol=2)
    assert b"numpy._core.multiarray" in stream
    (tmp_path / "e.pkl").write_bytes(stream.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_expected(read_embeddings(tmp_path / "e.pkl"))


class Calls:
    """Pickles as a call of a function, which is how hostile pickles run code."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["top", "value", "key", "nested"])
@pytest.mark.parametrize(
    ("function", "code"),
    [
        (os.system, "echo > {!r}"),
        (eval, "__import__('pathlib').Path({!r}).touch()"),
        (exec, "open({!r}, 'w').close()"),
    ],
    ids=["os.system", "builtins.eval", "builtins.exec"],
)
def test_hostile_pickles_run_nothing(tmp_path, function, code, place, protocol):
    trace = tmp_path / "trace"
    bomb = Calls(function, code.format(str(trace)))
    content = {
        "top": bomb,
        "value": {"KLF1": [1.0], "MYC": bomb},
        "key": {bomb: [1.0]},
        "nested": {"KLF1": [1.0, (2.0, [bomb])]},
    }[place]
    path = write_pickle(tmp_path / "e.pkl", content, protocol)
    with pytest.raises(pickle.UnpicklingError, match=rf"e\.pkl: refused \w+\.{function.__name__}: only dicts"):
        read_embeddings(path)
    assert not trace.exists()
    # An ordinary unpickler does run it, so the test above can fail.
    pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize(
    "function",
    [getattr, __import__, open, compile, bytes, complex, set, np.frombuffer, np.load, np.zeros, os.getcwd],
)
def test_no_other_callable_is_admitted(tmp_path, function):
    name = f"{function.__module__}.{function.__qualname__}"
    path = write_pickle(tmp_path / "e.pkl", {"KLF1": Calls(function, "x")})
    with pytest.raises(pickle.UnpicklingError, match="refused ") as caught:
        read_embeddings(path)
    assert name.rsplit(".", 1)[1] in str(caught.value)


def test_attributes_of_admitted_callables_are_out_of_reach(tmp_path):
    stream = b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93."
    (tmp_path / "e.pkl").write_bytes(stream)
    with pytest.raises(pickle.UnpicklingError, match=r"refused numpy.ndarray.__init__"):
        read_embeddings(tmp_path / "e.pkl")


def test_arrays_of_objects_are_refused(tmp_path):
    for values in ([1.0, "x"], [[1.0], None]):
        content = {"KLF1": np.array(values, dtype=object)}
        with pytest.raises(pickle.UnpicklingError, match=r"e.pkl: refused dtype 'O8': arrays must hold real"):
            read_embeddings(write_pickle(tmp_path / "e.pkl", content))


def test_bytes_cannot_be_passed_off_as_objects(tmp_path):
    """A forged dtype state would make numpy itself read bytes as object pointers; the stand-in does not."""
    dtype = Calls(np.dtype, "f8", False, True)
    forged = (3, "|O,", None, None, None, 8, 8, 0)

    class Forged(Calls):
        def __reduce__(self):
            return np.dtype, ("f8", False, True), forged

    array = Calls(np._core.numeric._frombuffer, b"A" * 8, Forged(dtype), (1,), "C")
    with pytest.raises(pickle.UnpicklingError, match="refused dtype 'f8'"):
        read_embeddings(write_pickle(tmp_path / "e.pkl", {"KLF1": array}))


@pytest.mark.parametrize("dtype", ["U3", "S3", "?", "c16", "M8[s]", [("a", "f4")]])
def test_arrays_of_anything_but_real_numbers_are_refused(tmp_path, dtype):
    content = {"KLF1": np.zeros(2, dtype=dtype)}
    with pytest.raises(pickle.UnpicklingError, match=r"e.pkl: refused "):
        read_embeddings(write_pickle(tmp_path / "e.pkl", content))


def test_bytes_are_decoded_by_latin1_alone(tmp_path):
    path = write_pickle(tmp_path / "e.pkl", {"KLF1": Calls(codecs.encode, "x", "rot13")})
    with pytest.raises(pickle.UnpicklingError, match=r"refused _codecs.encode to 'rot13'"):
        read_embeddings(path)


@pytest.mark.parametrize("content", [pd.DataFrame(VALUES), Path("x"), {"KLF1": pd.Series([1.0])}])
def test_other_classes_are_refused_with_a_way_out(tmp_path, content):
    with pytest.raises(pickle.UnpicklingError, match=r"refused (pandas|pathlib)\..* pass a dict of vectors"):
        read_embeddings(write_pickle(tmp_path / "e.pkl", content))


@pytest.mark.parametrize("stream", [b"no pickle", b"\x80\x04}", b"\x80\x04N", b"0.", b"\x80\x04K\x01K\x02b."])
def test_broken_pickles_are_refused(tmp_path, stream):
    (tmp_path / "e.pkl").write_bytes(stream)
    with pytest.raises(pickle.UnpicklingError, match=r"e\.pkl: "):
        read_embeddings(tmp_path / "e.pkl")


def broken_array(shape):
    return Calls(np._core.numeric._frombuffer, b"A" * 8, np.dtype("f8"), shape, "C")


def test_arrays_whose_shape_does_not_fit_are_refused(tmp_path):
    with pytest.raises(pickle.UnpicklingError, match=r"e\.pkl: not a readable pickle .ValueError"):
        read_embeddings(write_pickle(tmp_path / "e.pkl", {"KLF1": broken_array((2,))}))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1.0, 2.0], "expected a dict from gene symbols"),
        ({1: [1.0]}, "expected a dict from gene symbols"),
        ({}, "no embeddings"),
        ({"KLF1": [1.0, 2.0], "MYC": [1.0]}, "vectors differ in length"),
        ({"KLF1": [1.0, 2.0], "MYC": {"a": 1.0}}, r"the vector of MYC/a has shape \(\), .*pass a list of numbers"),
        ({"KLF1": [1.0, 2.0], "MYC": np.ones((1, 2))}, r"the vector of MYC has shape \(1, 2\), .*pass vector\[0\]"),
        ({"KLF1": [1.0, 2.0], "MYC": ["1", "2"]}, "the vector of MYC must hold real numbers, but has dtype <U1"),
        ({"KLF1": [1.0, 2.0], "MYC": [np.ones(2)]}, "the vector of MYC must hold real numbers, but has dtype object"),
        ({"KLF1": [1.0, 2.0], "MYC": [float("nan"), 1.0]}, "NaN or infinite values .* MYC"),
    ],
)
def test_pickles_of_other_content_are_refused(tmp_path, content, match):
    with pytest.raises(ValueError, match=rf"e\.pkl: .*{match}"):
        read_embeddings(write_pickle(tmp_path / "e.pkl", content))


# any file


def test_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        read_embeddings(tmp_path / "absent.csv")
    with pytest.raises(IsADirectoryError, match=f"{tmp_path.name} is a folder. Pass the path of a file in it"):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("name", ["e.xlsx", "e", "e.npz.gz", "e.gz"])
def test_an_unknown_suffix_lists_the_supported_ones(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"unknown suffix .*\.npz, \.parquet, \.csv, .*\.pkl, \.csv\.gz, "):
        read_embeddings(tmp_path / name)


SUFFIXES = [".npz", ".parquet", ".csv", ".csv.gz", ".h5", ".pickle"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file(tmp_path, suffix):
    (tmp_path / f"e{suffix}").touch()
    with pytest.raises(ValueError, match=rf"e{suffix}: the file is empty"):
        read_embeddings(tmp_path / f"e{suffix}")


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".txt"])
def test_a_file_of_another_kind(tmp_path, suffix):
    path = tmp_path / f"e{suffix}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe" + bytes(range(256)))
    with pytest.raises((ValueError, pickle.UnpicklingError), match=rf"e{suffix}: "):
        read_embeddings(path)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv.gz", ".h5"])
def test_a_file_that_was_cut_off(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez(whole, symbols=GENES, emb=VALUES)
    elif suffix == ".csv.gz":
        EXPECTED.to_csv(whole)
    elif suffix == ".parquet":
        pytest.importorskip("pyarrow")
        EXPECTED.rename(columns=str).to_parquet(whole)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(whole, "w") as file:
            file["P1"] = VALUES[0]
    read_embeddings(whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"cut{suffix}: cannot be read as "):
        read_embeddings(cut)


def test_importing_the_readers_imports_no_heavy_package():
    code = "import sys, distpert.embeddings.files; print({'pandas', 'h5py', 'scipy', 'anndata'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_a_file_that_may_not_be_read_is_not_called_broken(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("not yours")

    path = write_pickle(tmp_path / "e.pkl", {"KLF1": [1.0]})
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="not yours"):
        read_embeddings(path)
