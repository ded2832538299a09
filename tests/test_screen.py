import re
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array, csc_matrix, csr_array, csr_matrix

from distpert.histograms.screen import read_screen

LABELS = ["control", "A", "B+A", "ctrl+A", "A+B", "control+control"]


def make(matrix=None, labels=LABELS, genes=("x", "y", "z"), **obs):
    if matrix is None:
        matrix = np.arange(18, dtype=np.float32).reshape(6, 3) / 7
    frame = pd.DataFrame({"perturbation": labels, **obs}, index=[f"c{i}" for i in range(len(labels))])
    return anndata.AnnData(matrix, obs=frame, var=pd.DataFrame(index=list(genes)))


def test_reads_canonical_labels():
    adata = make()
    screen = read_screen(adata)
    assert screen.perturbation.tolist() == ["control", "A", "A+B", "A", "A+B", "control"]
    assert screen.context.tolist() == ["all"] * 6
    assert (screen.genes, screen.control, screen.context_key) == (("x", "y", "z"), "control", None)
    assert np.shares_memory(screen.matrix, adata.X)
    assert repr(screen) == "Screen: 6 labeled cells of 6, 3 genes, control 'control', context key None"


def test_categorical_and_number_labels():
    by_number = read_screen(make(labels=[0, 1, 1, 2, 0, 0]), control="0")
    assert by_number.perturbation.tolist() == ["0", "1", "1", "2", "0", "0"]
    categorical = read_screen(make(labels=pd.Categorical(LABELS)))
    assert categorical.perturbation.tolist() == read_screen(make()).perturbation.tolist()


def test_control_goes_by_another_usual_name():
    screen = read_screen(make(labels=["ctrl", "A+ctrl", "ctrl+ctrl", "A", "B", "ctrl"]))
    assert screen.control == "ctrl"
    assert screen.perturbation.tolist() == ["ctrl", "A", "ctrl", "A", "B", "ctrl"]


@pytest.mark.parametrize("layout", [csr_matrix, csr_array, csc_matrix, csc_array])
def test_sparse_matrices_are_not_copied(layout):
    adata = make(layout(np.eye(6, 3, dtype=np.float32)))
    screen = read_screen(adata)
    assert screen.matrix.format == layout([[1.0]]).format
    assert np.shares_memory(screen.matrix.data, adata.X.data)


@pytest.mark.parametrize("layout", [csr_matrix, csc_matrix])
def test_duplicate_entries_are_summed_in_a_copy(layout):
    twice = csr_matrix(([1.5, 2.0, 3.0], [2, 0, 0], [0, 3, 3, 3, 3, 3, 3]), shape=(6, 3))
    matrix = twice if layout is csr_matrix else csc_matrix(([1.5, 2.0, 3.0], [0, 1, 1], [0, 3, 3, 3]), shape=(6, 3))
    adata = make(matrix)
    screen = read_screen(adata)
    assert screen.matrix.nnz == 2
    assert adata.X.nnz == 3
    np.testing.assert_array_equal(screen.matrix.toarray(), adata.X.toarray())


def test_layer_and_gene_symbols():
    adata = make()
    adata.layers["log"] = adata.X + 1
    adata.var["symbol"] = ["p", "q", "r"]
    screen = read_screen(adata, layer="log", gene_symbols="symbol")
    assert screen.genes == ("p", "q", "r")
    np.testing.assert_array_equal(screen.matrix, adata.layers["log"])


def test_view_of_a_larger_screen():
    adata = make()[[0, 1, 5]]
    np.testing.assert_array_equal(read_screen(adata).matrix, adata.X)


@pytest.mark.parametrize("missing", [None, np.nan, "", " "])
def test_cells_without_a_label_are_left_out(missing):
    adata = make(labels=["control", missing, "A", missing, "B", "control"])
    with pytest.warns(UserWarning, match=r"2 of 6 cells have no label in adata.obs\['perturbation'\]") as caught:
        screen = read_screen(adata)
    assert len(caught) == 1
    assert screen.perturbation.tolist() == ["control", "", "A", "", "B", "control"]


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "<NA>", "NA", " nan", "A+nan"])
def test_the_text_of_a_missing_value_is_no_label(text):
    adata = make(labels=["control", text, "A", text, "B", "control"])
    with pytest.raises(
        ValueError, match=rf"adata.obs\['perturbation'\] has the label '{re.escape(text.strip())}', .*str"
    ):
        read_screen(adata)


def test_a_gene_perturbed_twice_is_refused():
    with pytest.raises(ValueError, match=r"the label 'A\+A' names A twice"):
        read_screen(make(labels=["control", "A+A", "A", "B", "B", "control"]))


def test_labels_that_only_resemble_a_missing_value():
    labels = ["None", "NANOG", "NAN", "A+None", "NAT", "None"]
    assert read_screen(make(labels=labels), control="None").perturbation.tolist() == [
        *("None", "NANOG", "NAN", "A", "NAT", "None")
    ]


def test_contexts():
    adata = make(labels=["control", "control", "control", "A", "A", "control"], day=[2, 2, 3, 3, 3, 3])
    screen = read_screen(adata, context_key="day")
    assert screen.context.tolist() == ["2", "2", "3", "3", "3", "3"]
    assert screen.context_key == "day"


def test_context_of_an_unlabeled_cell_may_be_missing():
    adata = make(labels=["control", "A", None, "A", "A", "control"], day=["d", "d", None, "d", "d", "d"])
    with pytest.warns(UserWarning, match="1 of 6 cells have no label"):
        assert read_screen(adata, context_key="day").context[2] == ""


def test_contexts_without_control():
    adata = make(labels=["control", "A", "A", "A", "A", "control"], day=["a", "a", "b", "c", "a", "a"])
    with pytest.raises(ValueError, match=r"no control cells in these contexts of adata.obs\['day'\]: b, c\."):
        read_screen(adata, context_key="day")
    assert read_screen(adata, context_key="day", fallback_control="NT").control == "control"


def test_a_single_control_cell():
    labels = ["control", "A", "A", "control", "A", "control"]
    adata = make(labels=labels, day=["a", "a", "b", "b", "c", "c"])
    with pytest.warns(UserWarning, match=r"^only 1 control cell in these .*\['day'\]: a, b, c; perturbed cells"):
        read_screen(adata, context_key="day")
    with pytest.warns(UserWarning, match=r"^only 1 control cell; perturbed cells are compared"):
        read_screen(adata[[0, 1, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_screen(adata)
        read_screen(adata, context_key="day", fallback_control="control")  # held-out cells need none


def test_context_is_missing():
    with pytest.raises(ValueError, match=r"1 labeled cells have no context in adata.obs\['day'\]"):
        read_screen(make(day=["a", None, "a", "a", "a", "a"]), context_key="day")


def test_no_control():
    adata = make(labels=["A", "A", "B", "B", "A", "B"])
    with pytest.raises(ValueError, match="labels there are: A, B"):
        read_screen(adata)
    screen = read_screen(adata, fallback_control="NT")
    assert screen.perturbation.tolist() == ["A", "A", "B", "B", "A", "B"]
    assert screen.control == "NT"


@pytest.mark.parametrize(
    ("labels", "options", "others"),
    [
        (["control", "A", "non-targeting", "control", "A+ctrl", "non-targeting"], {}, "non-targeting"),
        (["control", "ctrl", "non-targeting", "A", "A+ctrl", "ctrl"], {"control": "ctrl"}, "control, non-targeting"),
        (["NT", "A", "ctrl", "A", "B+NT", "NT"], {"control": "NT"}, "ctrl"),
        (["A", "ctrl", "A", "A", "B", "B"], {"control": "NT", "fallback_control": "NT"}, "ctrl"),
        (["control", "Control", "A", "A", "B", "control"], {}, "Control"),
        (["NT", "A", "A+Ctrl", "nt", "B", "NT"], {"control": "NT"}, r"A\+Ctrl, nt"),
        (["NT-1", "A", "NT-2", "unassigned", "B", "NT-1"], {"control": "NT-1"}, "NT-2, unassigned"),
    ],
)
def test_cells_of_another_usual_control(labels, options, others):
    adata = make(labels=labels)
    with pytest.warns(UserWarning, match=f"labeled {others} besides .* write it '.*' too") as caught:
        screen = read_screen(adata, **options)
    assert sum("labeled" in str(warning.message) for warning in caught) == 1
    assert set(others.replace("\\", "").split(", ")) <= set(screen.perturbation)


def test_contexts_that_are_text_of_a_missing_value():
    adata = make()
    adata.obs["day"] = np.array([1, 2, np.nan, 1, 2, 1]).astype(str)
    with pytest.raises(ValueError, match=r"has the context 'nan', which astype\(str\), or R, makes of a missing value"):
        read_screen(adata, context_key="day")


def test_control_is_text():
    with pytest.raises(
        TypeError, match=r"labels are read as text, and so is that of the control cells: give control='0'"
    ):
        read_screen(make(labels=[0, 1, 2, 0, 1, 2]), control=0)
    assert read_screen(make(labels=[0, 1, 2, 0, 1, 2]), control="0").control == "0"


def test_not_an_anndata():
    with pytest.raises(TypeError, match=r"expected an anndata.AnnData .* got DataFrame"):
        read_screen(pd.DataFrame())


def test_backed(tmp_path):
    make().write_h5ad(tmp_path / "screen.h5ad")
    adata = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"adata.to_memory\(\)"):
        read_screen(adata)
    adata.file.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbation_key": "guide"}, "no column 'guide' in adata.obs; there are: perturbation, day"),
        ({"context_key": "batch"}, "no column 'batch' in adata.obs; there are: perturbation, day"),
        ({"layer": "log"}, "no layer 'log' in adata.layers; there are: raw"),
        ({"gene_symbols": "symbol"}, "no column 'symbol' in adata.var; there are: none"),
    ],
)
def test_unknown_names(options, message):
    adata = make(day=["a"] * 6)
    adata.layers["raw"] = adata.X
    with pytest.raises(KeyError, match=message):
        read_screen(adata, **options)


def test_gene_names():
    with pytest.warns(UserWarning, match="not unique"):
        adata = make(genes=("x", "y", "x"))
    with pytest.raises(ValueError, match=r"symbols in adata.var_names: x; .*var_names_make_unique\(\)"):
        read_screen(adata)
    adata = make()
    adata.var["symbol"] = ["p", "q", "q"]
    with pytest.raises(ValueError, match=r"symbols in adata.var\['symbol'\]: q; keep one column"):
        read_screen(adata, gene_symbols="symbol")
    adata.var["symbol"] = ["p", "q", None]
    with pytest.raises(ValueError, match=r"1 genes have no symbol in adata.var\['symbol'\]"):
        read_screen(adata, gene_symbols="symbol")
    with pytest.raises(ValueError, match="no genes"):
        read_screen(make(np.ones((6, 0)), genes=()))


@pytest.mark.parametrize("layout", [np.asarray, csr_matrix, csc_matrix])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-3])
def test_values_that_are_no_expression(layout, bad):
    matrix = np.eye(6, 3)
    matrix[4, 1] = bad
    what = "negative" if bad == -1e-3 else "not finite"
    with pytest.raises(ValueError, match=f"adata.X has 1 {what} values.* the first is of gene 'y'"):
        read_screen(make(layout(matrix)))


@pytest.mark.parametrize("layout", [np.asarray, csr_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_raw_counts(layout, dtype):
    matrix = np.eye(6, 3, dtype=dtype) * 16
    adata = make(layout(matrix))
    adata.layers["counts"] = adata.X
    with pytest.warns(UserWarning, match=r"adata.X reach 16 and look like raw counts.*scanpy.pp.log1p") as caught:
        read_screen(adata)
    with pytest.warns(UserWarning, match=r"adata.layers\['counts'\] reach 16"):
        read_screen(adata, layer="counts")
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="reach 15 and look like raw counts"):
        read_screen(make(layout(np.eye(6, 3, dtype=dtype) * 15)))
    fine = make(layout(np.eye(6, 3) * 14.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_screen(fine)


def test_normalized_but_not_logged():
    with pytest.warns(UserWarning, match=r"reach 20\.5 and are no logarithms"):
        read_screen(make(np.eye(6, 3) * 20.5))


def test_matrices_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"adata.X is empty: pass layer="):
        read_screen(anndata.AnnData(obs=make().obs, var=make().var))
    with pytest.raises(TypeError, match=r"adata.X has dtype complex128"):
        read_screen(make(np.eye(6, 3).astype(complex)))
    masked = make(np.ma.masked_array(np.eye(6, 3), mask=np.eye(6, 3) == 0))
    with pytest.raises(TypeError, match=r"adata.X is a MaskedArray: .*scipy.sparse.csr_matrix\(\)"):
        read_screen(masked)
