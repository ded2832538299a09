import re
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array, csc_matrix, csr_array, csr_matrix

from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import read_screen

LABELS = ["control", "A", "B+A", "ctrl+A", "A+B", "control+control"]


def make(matrix=None, labels=LABELS, genes=("x", "y", "z"), **obs):
    if matrix is None:
        matrix = np.arange(18, dtype=np.float32).reshape(6, 3) / 7
    frame = pd.DataFrame({"perturbation": labels, **obs}, index=[f"c{i}" for i in range(len(labels))])
    return anndata.AnnData(matrix, obs=frame, var=pd.DataFrame(index=list(genes)))


def read(adata, fallback_control=None, **names):
    return read_screen(adata, ScreenKeys(**names), fallback_control=fallback_control)


def test_reads_canonical_labels():
    adata = make()
    screen = read(adata)
    assert screen.perturbation.tolist() == ["control", "A", "A+B", "A", "A+B", "control"]
    assert screen.context.tolist() == ["all"] * 6
    assert (screen.genes, screen.control, screen.keys) == (("x", "y", "z"), "control", ScreenKeys())
    assert screen.perturbations == ("A", "A+B")
    assert np.shares_memory(screen.matrix, adata.X)
    assert repr(screen) == "Screen: 6 labeled cells of 6, 3 genes, control 'control', context key None"


def test_categorical_and_number_labels():
    by_number = read(make(labels=[0, 1, 1, 2, 0, 0]), control="0")
    assert by_number.perturbation.tolist() == ["0", "1", "1", "2", "0", "0"]
    categorical = read(make(labels=pd.Categorical(LABELS)))
    assert categorical.perturbation.tolist() == read(make()).perturbation.tolist()


def test_control_goes_by_another_usual_name():
    screen = read(make(labels=["ctrl", "A+ctrl", "ctrl+ctrl", "A", "B", "ctrl"]))
    assert screen.control == "ctrl"
    assert screen.perturbation.tolist() == ["ctrl", "A", "ctrl", "A", "B", "ctrl"]


@pytest.mark.parametrize("label", ["Non-Targeting", "CTRL", "Control"])
def test_usual_control_in_another_case(label):
    screen = read(make(labels=[label, f"A+{label}", f"{label}+{label}", "A", "B", label]))
    assert screen.control == screen.keys.control == label
    assert screen.perturbation.tolist() == [label, "A", label, "A", "B", label]


@pytest.mark.parametrize("layout", [csr_matrix, csr_array, csc_matrix, csc_array])
def test_sparse_matrices_are_not_copied(layout):
    adata = make(layout(np.eye(6, 3, dtype=np.float32)))
    screen = read(adata)
    assert screen.matrix.format == layout([[1.0]]).format
    assert np.shares_memory(screen.matrix.data, adata.X.data)


@pytest.mark.parametrize("layout", [csr_matrix, csc_matrix])
def test_duplicate_entries_are_summed_in_a_copy(layout):
    twice = csr_matrix(([1.5, 2.0, 3.0], [2, 0, 0], [0, 3, 3, 3, 3, 3, 3]), shape=(6, 3))
    matrix = twice if layout is csr_matrix else csc_matrix(([1.5, 2.0, 3.0], [0, 1, 1], [0, 3, 3, 3]), shape=(6, 3))
    adata = make(matrix)
    screen = read(adata)
    assert screen.matrix.nnz == 2
    assert adata.X.nnz == 3
    np.testing.assert_array_equal(screen.matrix.toarray(), adata.X.toarray())


def test_layer_and_gene_symbols():
    adata = make()
    adata.layers["log"] = adata.X + 1
    adata.var["symbol"] = ["p", "q", "r"]
    screen = read(adata, layer="log", gene_symbols="symbol")
    assert screen.genes == ("p", "q", "r")
    np.testing.assert_array_equal(screen.matrix, adata.layers["log"])


def test_view_of_a_larger_screen():
    adata = make()[[0, 1, 5]]
    np.testing.assert_array_equal(read(adata).matrix, adata.X)


@pytest.mark.parametrize("missing", [None, np.nan, "", " "])
def test_cells_without_a_label_are_left_out(missing):
    adata = make(labels=["control", missing, "A", missing, "B", "control"])
    with pytest.warns(UserWarning, match=r"2 of 6 cells have no label in adata.obs\['perturbation'\]") as caught:
        screen = read(adata)
    assert len(caught) == 1
    assert screen.perturbation.tolist() == ["control", "", "A", "", "B", "control"]


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "<NA>", "NA", " nan", "A+nan"])
def test_the_text_of_a_missing_value_is_no_label(text):
    adata = make(labels=["control", text, "A", text, "B", "control"])
    with pytest.raises(
        ValueError, match=rf"adata.obs\['perturbation'\] has the label '{re.escape(text.strip())}', .*str"
    ):
        read(adata)


def test_a_gene_perturbed_twice_is_refused():
    with pytest.raises(ValueError, match=r"the label 'A\+A' names A twice"):
        read(make(labels=["control", "A+A", "A", "B", "B", "control"]))


def test_labels_that_only_resemble_a_missing_value():
    labels = ["None", "NANOG", "NAN", "A+None", "NAT", "None"]
    assert read(make(labels=labels), control="None").perturbation.tolist() == [
        *("None", "NANOG", "NAN", "A", "NAT", "None")
    ]


def test_contexts():
    adata = make(labels=["control", "control", "control", "A", "A", "control"], day=[2, 2, 3, 3, 3, 3])
    screen = read(adata, context_key="day")
    assert screen.context.tolist() == ["2", "2", "3", "3", "3", "3"]
    assert screen.keys.context_key == "day"


def test_whole_numbers_are_one_context_whatever_their_type():
    as_object = pd.Series([1, 1.0, "1", np.int8(2), "2", np.float32(2)], dtype=object).to_numpy()
    labels = ["control", "control", "A", "control", "A", "control"]
    for day in ([1, 1, 1, 2, 2, 2], [1.0, 1.0, 1.0, 2.0, 2.0, 2.0], as_object, pd.Categorical([1.0] * 3 + [2.0] * 3)):
        screen = read(make(labels=labels, day=day), context_key="day")
        assert screen.context.tolist() == ["1", "1", "1", "2", "2", "2"]
    assert read(make(labels=labels, day=[0.5] * 6), context_key="day").context.tolist() == ["0.5"] * 6


def test_numbers_as_labels_stay_the_same_beside_a_missing_one():
    with pytest.warns(UserWarning, match="1 of 6 cells have no label"):
        screen = read(make(labels=[0, 1, None, 2, 0, 0]), control="0")  # pandas makes floats of them
    assert screen.perturbation.tolist() == ["0", "1", "", "2", "0", "0"]


def test_context_of_an_unlabeled_cell_may_be_missing():
    adata = make(labels=["control", "A", None, "A", "A", "control"], day=["d", "d", None, "d", "d", "d"])
    with pytest.warns(UserWarning, match="1 of 6 cells have no label"):
        assert read(adata, context_key="day").context[2] == ""


def test_contexts_without_control():
    adata = make(labels=["control", "A", "A", "A", "A", "control"], day=["a", "a", "b", "c", "a", "a"])
    with pytest.raises(ValueError, match=r"no control cells in these contexts of adata.obs\['day'\]: b, c\."):
        read(adata, context_key="day")
    assert read(adata, context_key="day", fallback_control="NT").control == "control"


def test_a_single_control_cell():
    labels = ["control", "A", "A", "control", "A", "control"]
    adata = make(labels=labels, day=["a", "a", "b", "b", "c", "c"])
    with pytest.warns(UserWarning, match=r"^only 1 control cell in these .*\['day'\]: a, b, c. Perturbed cells"):
        read(adata, context_key="day")
    with pytest.warns(UserWarning, match=r"^only 1 control cell\. Perturbed cells are compared"):
        read(adata[[0, 1, 2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(adata)
        read(adata, context_key="day", fallback_control="control")  # held-out cells need none


def test_context_is_missing():
    with pytest.raises(ValueError, match=r"1 labeled cells have no context in adata.obs\['day'\]"):
        read(make(day=["a", None, "a", "a", "a", "a"]), context_key="day")


def test_no_control():
    adata = make(labels=["A", "A", "B", "B", "A", "B"])
    with pytest.raises(ValueError, match="labels are: A, B"):
        read(adata)
    screen = read(adata, fallback_control="NT")
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
        (["NT", "A", "A+Ctrl", "nt", "B", "NT"], {"control": "NT"}, "nt"),
        (["NT", "A", "A+Ntc", "nt", "B", "NT"], {"control": "NT"}, r"A\+Ntc, nt"),
        (["NT-1", "A", "NT-2", "unassigned", "B", "NT-1"], {"control": "NT-1"}, "NT-2, unassigned"),
    ],
)
def test_cells_of_another_usual_control(labels, options, others):
    adata = make(labels=labels)
    with pytest.warns(
        UserWarning, match=f"labeled {others} besides the control .* relabel them '.*'; if not, leave"
    ) as caught:
        screen = read(adata, **options)
    assert sum("labeled" in str(warning.message) for warning in caught) == 1
    assert set(others.replace("\\", "").split(", ")) <= set(screen.perturbation)


def test_contexts_that_are_text_of_a_missing_value():
    adata = make()
    adata.obs["day"] = np.array([1, 2, np.nan, 1, 2, 1]).astype(str)
    with pytest.raises(
        ValueError, match=r"has the context 'nan', the text that astype\(str\) or R makes of a missing value"
    ):
        read(adata, context_key="day")


@pytest.mark.parametrize(("control", "text"), [(0, "0"), (0.0, "0"), (np.int64(0), "0"), (2.5, "2.5"), (None, None)])
def test_control_is_text(control, text):
    adata = make(labels=[0.0, 2.5, 2.0, 0.0, 2.5, 2.0])
    example = f": control='{text}'" if text else ""
    message = f"control must be the label of the control cells in adata.obs['perturbation'], a str{example}; got "
    with pytest.raises(TypeError, match=f"^{re.escape(message + repr(control))}$"):
        read(adata, control=control)
    if text:
        assert read(adata, control=text).control == text


# Labels of the cells, those given as control, and the labels that follow once the advice is taken.
SEVERAL_CONTROLS = {
    "list": (["NT-1", "NT-2", "A", "A+B", "NT-1", "B"], ["NT-1", "NT-2"], ["NT-1", "NT-1", "A", "A+B", "NT-1", "B"]),
    "tuple": (["ctrl", "NT", "A", "B", "NT", "ctrl"], ("NT", "ctrl"), ["ctrl", "ctrl", "A", "B", "ctrl", "ctrl"]),
    "set": (["x", "y", "z", "A", "z", "B"], {"y", "x", "z"}, ["x", "x", "x", "A", "x", "B"]),
    "array": (["NT", "safe", "A", "B", "NT", "A"], np.array(["NT", "safe"]), ["NT", "NT", "A", "B", "NT", "A"]),
    "numbers": ([0, 1, 2, 3, 0, 2], [0, 1], ["0", "0", "2", "3", "0", "2"]),
    "one": (["NT", "A", "B", "A", "B", "NT"], ["NT"], ["NT", "A", "B", "A", "B", "NT"]),
}


@pytest.mark.parametrize("categorical", [False, True])
@pytest.mark.parametrize("kind", SEVERAL_CONTROLS)
def test_advice_on_several_control_labels_works(kind, categorical):
    labels, control, expected = SEVERAL_CONTROLS[kind]
    adata = make(labels=pd.Categorical(labels) if categorical else labels)
    with pytest.raises(
        TypeError, match=rf"^control must be one label, a str, not a \w+ of {len(control)} \("
    ) as refused:
        read(adata, control=control)
    message = str(refused.value)
    if code := re.search(r"Label all control cells alike: (.*), and pass", message):
        exec(code[1], {"adata": adata})
    else:
        assert len(control) == 1
    screen = read(adata, control=re.search(r"[pP]ass control='(.*)'$", message)[1])
    assert screen.perturbation.tolist() == expected


@pytest.mark.parametrize("control", [[], (), set()])
def test_no_control_label_at_all(control):
    with pytest.raises(TypeError, match=r"^control must be the label of the control cells .*; got "):
        read(make(), control=control)


def test_not_an_anndata():
    with pytest.raises(TypeError, match=r"expected an anndata.AnnData .* got DataFrame"):
        read(pd.DataFrame())


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
        read(adata, **options)


def test_gene_names():
    with pytest.warns(UserWarning, match="not unique"):
        adata = make(genes=("x", "y", "x"))
    with pytest.raises(
        ValueError, match=r"symbols in adata.var_names: x\. Make them unique with adata\.var_names_make_unique\(\)"
    ):
        read(adata)
    adata = make()
    adata.var["symbol"] = ["p", "q", "q"]
    with pytest.raises(ValueError, match=r"symbols in adata.var\['symbol'\]: q\. Keep one column"):
        read(adata, gene_symbols="symbol")
    adata.var["symbol"] = ["p", "q", None]
    with pytest.raises(ValueError, match=r"1 genes have no symbol in adata.var\['symbol'\]"):
        read(adata, gene_symbols="symbol")
    with pytest.raises(ValueError, match="no genes"):
        read(make(np.ones((6, 0)), genes=()))


@pytest.mark.parametrize("layout", [np.asarray, csr_matrix, csc_matrix])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-3])
def test_values_that_are_no_expression(layout, bad):
    matrix = np.eye(6, 3)
    matrix[4, 1] = bad
    what = "negative" if bad == -1e-3 else "not finite"
    with pytest.raises(ValueError, match=f"adata.X has 1 {what} values.* the first is of gene 'y'"):
        read(make(layout(matrix)))


@pytest.mark.parametrize("layout", [np.asarray, csr_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_raw_counts(layout, dtype):
    matrix = np.eye(6, 3, dtype=dtype) * 16
    adata = make(layout(matrix))
    adata.layers["counts"] = adata.X
    with pytest.warns(UserWarning, match=r"adata.X reach 16 and look like raw counts.*scanpy.pp.log1p") as caught:
        read(adata)
    with pytest.warns(UserWarning, match=r"adata.layers\['counts'\] reach 16"):
        read(adata, layer="counts")
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="reach 15 and look like raw counts"):
        read(make(layout(np.eye(6, 3, dtype=dtype) * 15)))
    fine = make(layout(np.eye(6, 3) * 14.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(fine)


def test_normalized_but_not_logged():
    with pytest.warns(UserWarning, match=r"reach 20\.5 and are not logarithms"):
        read(make(np.eye(6, 3) * 20.5))


def test_advice_on_a_layer_changes_nothing_else():
    adata = make()
    adata.layers["counts"] = np.eye(6, 3) * 16
    with pytest.warns(UserWarning, match="raw counts") as caught:
        read(adata, layer="counts")
    message = str(caught[0].message)
    assert "adata.layers['log1p'] = adata.layers['counts'].copy()" in message
    calls = re.findall(r"scanpy\.pp\.\w+\(([^)]*)\)", message)
    assert len(calls) == 2
    assert all("layer='log1p'" in call for call in calls)
    assert message.endswith("pass layer='log1p'")


def test_advice_on_a_layer_that_has_no_counts_starts_from_counts():
    counts = np.random.default_rng(0).poisson(3, (6, 40))
    adata = make(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), genes=[f"g{i}" for i in range(40)])
    adata.layers["twice"] = np.log1p(adata.X)
    with pytest.warns(UserWarning, match=r"layers\['twice'\] look like log1p taken twice.*layers\['counts'\].copy\(\)"):
        read(adata, layer="twice")


def test_scaled_values_are_replaced_by_those_of_raw():
    adata = make()
    before = adata.X.copy()
    adata.raw = adata
    adata.X = adata.X - adata.X.mean(axis=0)
    with pytest.raises(
        ValueError, match=r"negative values.* use the unscaled values: adata = adata\.raw\.to_adata\(\)$"
    ) as refused:
        read(adata)
    adata.layers["scaled"] = adata.X
    with pytest.raises(ValueError, match=r"layers\['scaled'\] has .* negative values.* those of a layer, with layer=$"):
        read(adata, layer="scaled")
    names = {"adata": adata}
    exec(str(refused.value).rpartition("values: ")[2], names)
    np.testing.assert_array_equal(read(names["adata"]).matrix, before)
    adata.raw = None
    with pytest.raises(ValueError, match=r"those of a layer, with layer=$"):
        read(adata)


def test_matrices_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"adata.X is empty\. Pass layer="):
        read(anndata.AnnData(obs=make().obs, var=make().var))
    with pytest.raises(TypeError, match=r"adata.X has dtype complex128"):
        read(make(np.eye(6, 3).astype(complex)))
    masked = make(np.ma.masked_array(np.eye(6, 3), mask=np.eye(6, 3) == 0))
    with pytest.raises(TypeError, match=r"adata.X is a MaskedArray.*: adata.X = adata.X.filled\(0\)$"):
        read(masked)
