"""Cross-validation against the same steps done by hand on copies of the cells."""

import json
import tracemalloc
from dataclasses import dataclass, field

import anndata
import numpy as np
import pytest
import scipy.sparse
import xarray as xr

import distpert
from distpert.cross_validation.protocol import Distpert, cross_validate
from distpert.cross_validation.splits import split_perturbations
from distpert.evaluation.scoring import score
from distpert.histograms.counting import count_histograms
from distpert.model.optimization import Optimization
from distpert.predictions.point import MeanPrediction, PointPrediction

LABELS = ["control", *(f"GENE{i}" for i in range(9))]
QUICK = Distpert(num_draws=20, n_factors=2, optimization=Optimization(max_epochs=2, min_steps=1))


@dataclass(frozen=True)
class Pooled:
    """Predicts the histogram of all training cells; remembers what it was fitted to, and fails or stops if told so."""

    smoothing: float = 1.0
    name: str = "pooled_cells"
    means: bool = False
    fitted_to: list = field(default_factory=list, repr=False, compare=False)
    raises: dict = field(default_factory=dict, repr=False, compare=False)

    def fit(self, histograms, embeddings, *, seed=0):
        if len(self.fitted_to) in self.raises:
            raise self.raises[len(self.fitted_to)]
        self.fitted_to.append(histograms)
        return PooledFit(self, histograms)


@dataclass(frozen=True)
class PooledFit:
    method: Pooled
    histograms: distpert.Histograms

    def predict(self, perturbations, *, context=None, seed=0):
        counts = self.histograms.counts.to_numpy().sum(axis=0) + self.method.smoothing
        probs = counts / counts.sum(axis=-1, keepdims=True)
        contexts = self.histograms.contexts
        probs = np.broadcast_to(probs, (len(perturbations), len(contexts), *probs.shape))
        if self.method.means:
            means = (probs * self.histograms.centers.to_numpy()).sum(axis=-1)
            return MeanPrediction(self.histograms, perturbations, contexts, means, seed=seed)
        return PointPrediction(self.histograms, perturbations, contexts, probs, seed=seed)


@pytest.fixture(scope="module")
def screen(context_screen):
    """Nine perturbations; the contexts are not looked at unless a test names them."""
    adata = context_screen.adata
    few = np.concatenate([np.flatnonzero(adata.obs["perturbation"] == name)[::4] for name in LABELS])
    return anndata.AnnData(adata.X[few], obs=adata.obs.iloc[few], var=adata.var), context_screen.embeddings


@pytest.fixture(scope="module")
def with_pairs(screen):
    """Some perturbations become pairs of others."""
    adata = screen[0].copy()
    pairs = {"GENE6": "GENE1+GENE0", "GENE7": "GENE1+GENE2", "GENE8": "GENE3+GENE8"}
    adata.obs["perturbation"] = [pairs.get(label, label) for label in adata.obs["perturbation"]]
    return adata, screen[1]


def run(adata, embeddings, models, **options):
    return cross_validate(adata, embeddings, models=models, **{"n_folds": 3, "progress_bar": False, **options})


def by_hand(adata, embeddings, model, fold, seed=0, **keys):
    """Bins, fit, prediction and scores of one fold from copies of the cells."""
    labels = adata.obs["perturbation"].map(lambda label: "+".join(sorted(label.split("+"))))
    training = count_histograms(adata[[fold.trains_on(label) for label in labels]].copy(), **keys)
    prediction = model.fit(training, distpert.embeddings.sources.as_embeddings(embeddings), seed=seed)
    prediction = prediction.predict(sorted(fold.held_out), seed=seed)
    return training, score(prediction, adata[labels.isin(fold.held_out).to_numpy()].copy(), seed=seed)


# ----------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", ["screen", "with_pairs"])
@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("keys", [{}, {"context_key": "context"}])
def test_each_fold_is_as_by_hand(name, layout, keys, request):
    adata, embeddings = request.getfixturevalue(name)
    adata = adata.copy()
    adata.X = layout(adata.X)
    method = Pooled()
    scores = run(adata, embeddings, [method], seed=5, **keys)
    splits = split_perturbations(set(count_histograms(adata, **keys).perturbations), 3, seed=5)
    tail = ("context",) if keys else ()
    for i, fold in enumerate(splits.folds):
        training, expected = by_hand(adata, embeddings, Pooled(), fold, seed=5, **keys)
        assert method.fitted_to[i].dataset.identical(training.dataset)
        assert not any(set(label.split("+")) & set(fold.genes) for label in method.fitted_to[i].perturbations)
        labels = sorted(fold.held_out)
        here = scores.sel(fold=i)
        for variable in expected:
            both = variable in ("n_cells", "out_of_range", "undefined_genes") or variable.startswith("ceiling_")
            assert scores[variable].dims == (*([] if both else ["model"]), "fold", "perturbation", *tail)
            value = here[variable] if both else here[variable].sel(model="pooled_cells")
            np.testing.assert_array_equal(value.sel(perturbation=labels), expected[variable])
            assert value.drop_sel(perturbation=labels).isnull().all()
            assert scores[variable].attrs == expected[variable].attrs
        assert here["category"].sel(perturbation=labels).to_numpy().tolist() == [fold.held_out[p] for p in labels]
        assert (here["category"].drop_sel(perturbation=labels) == "").all()
    assert scores.attrs == {"n_folds": 3, "seed": 5, "version": distpert.__version__}
    assert scores["seconds"].dims == ("model", "fold")
    assert (scores["seconds"] >= 0).all()
    assert set(scores) == {*expected, "seconds"}


def test_categories_of_pairs(with_pairs):
    scores = run(*with_pairs, Pooled())
    categories = scores["category"].sel(perturbation=["GENE0+GENE1", "GENE0"])
    for i, fold in enumerate(split_perturbations(scores["perturbation"].to_numpy().tolist(), 3).folds):
        training = [label for label in scores["perturbation"].to_numpy() if fold.trains_on(label)]
        seen = sum(any(gene in label.split("+") for label in training) for gene in ("GENE0", "GENE1"))
        here = categories.sel(fold=i).to_numpy().tolist()
        assert here[0] == ("" if "GENE0+GENE1" in training else f"combo_seen{seen}")
        assert here[1] == ("unseen_single" if "GENE0" in fold.genes else "")


def test_distpert_and_a_missing_embedding(screen):
    adata, embeddings = screen[0], screen[1].drop("GENE8")
    with pytest.warns(UserWarning) as caught:
        scores = run(adata, embeddings, QUICK, folds=1, seed=4)
    assert [str(warning.message) for warning in caught] == [
        "no embedding for GENE8: kept in training, but never held out"
    ]
    fold = split_perturbations(LABELS[1:-1], 3, seed=4, training_only=["GENE8"]).folds[1]
    with pytest.warns(UserWarning, match="no embedding for GENE8"):
        _, expected = by_hand(adata, embeddings, QUICK, fold, seed=4)
    for variable in ("nll", "cramer", "wasserstein", "rmae_kurtosis", "pearson_shift"):
        np.testing.assert_allclose(scores[variable].sel(model="distpert", fold=1), expected[variable], rtol=1e-5)


def test_named_models_and_draws():
    from distpert.cross_validation.models import name_models

    models = name_models(["distpert", "control", ("mine", Pooled())], num_draws=7, keep=True)
    assert models == {"distpert": Distpert(num_draws=7), "control": models["control"], "mine": Pooled()}
    assert models["control"].name == "control"
    assert list(name_models("distpert", 7, keep=False)) == ["distpert"]
    assert list(name_models([("mine", Pooled())], 7, keep=False)) == ["mine"]
    assert list(name_models(("control", "pooled"), 7, keep=False)) == ["control", "pooled"]
    assert name_models(("distpert", Pooled()), 7, keep=False) == {
        "distpert": Distpert(num_draws=7),
        "pooled_cells": Pooled(),
    }
    with pytest.raises(ValueError, match=r"no model 'mine'.*models=\[\('mine', model\)\]"):
        name_models(("mine", Pooled()), 7, keep=False)


@pytest.mark.parametrize("order", [1, -1])
def test_methods_that_predict_means_alone(screen, order):
    methods = [Pooled(means=True, name="means"), Pooled()]
    scores = run(*screen, methods[::order])
    assert scores["model"].to_numpy().tolist() == ["means", "pooled_cells"][::order]
    assert scores["nll"].sel(model="means").isnull().all()
    assert scores["rmae_mean"].notnull().sum(["fold", "perturbation"]).to_numpy().tolist() == [9, 9]
    assert scores["ceiling_nll"].dims == ("fold", "perturbation")
    assert scores["ceiling_nll"].notnull().sum() == 9
    assert scores["nll"].attrs["better"] == "lower"


def test_leave_one_out(screen):
    scores = run(*screen, Pooled(), n_folds=9)
    assert scores["nll"].notnull().sum("perturbation").to_numpy().tolist() == [[1] * 9]


# ------------------------------------------------------------------------------------------- who can not be held out


def test_never_held_out(screen):
    adata = screen[0].copy()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "GENE8")[1:]] = "GENE4+NOVEL"
    adata.obs["perturbation"] = np.where(np.arange(len(labels)) == 7, None, labels)
    method = Pooled()
    with pytest.warns(UserWarning) as caught:
        scores = run(adata, screen[1], method)
    assert sorted(str(warning.message) for warning in caught) == [
        f"1 of {len(labels)} cells have no label in adata.obs['perturbation'] and are left out. A missing label never "
        "counts as control",
        "fewer than 2 cells of GENE8: kept in training, but never held out",
        "no embedding for GENE4+NOVEL: kept in training, but never held out",
    ]
    assert all(warning.filename == __file__ for warning in caught)
    assert scores["perturbation"].to_numpy().tolist() == [f"GENE{i}" for i in range(8)]
    for i, training in enumerate(method.fitted_to):
        assert "GENE8" in training.perturbations
        held_out = bool(scores["category"].sel(fold=i, perturbation="GENE4") != "")
        assert ("GENE4+NOVEL" in training.perturbations) != held_out


# ------------------------------------------------------------------------------------------------------------ resuming


def test_an_interrupted_run_goes_on(screen, tmp_path):
    path = tmp_path / "new" / "folder"
    stopped = Pooled(raises={2: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run(*screen, [stopped], path=path)
    assert sorted(file.name for file in path.iterdir()) == [
        *("fold0_pooled_cells.nc", "fold1_pooled_cells.nc", "settings.json", "splits.json")
    ]
    method, other = Pooled(), Pooled(smoothing=3, name="smoother")
    scores = run(*screen, [method, other], path=path)
    assert len(method.fitted_to) == 1
    assert len(other.fitted_to) == 3
    expected = run(*screen, [Pooled(), other])
    assert scores.drop_vars("seconds").identical(expected.drop_vars("seconds"))
    splits = distpert.cross_validation.splits.Splits.from_json((path / "splits.json").read_text())
    assert splits == split_perturbations(set(screen[0].obs["perturbation"]) - {"control"}, 3)
    again = run(*screen, [Pooled(raises={0: AssertionError("fitted again")}), other], path=path)
    assert again.identical(scores)


def test_folds_one_by_one_share_a_folder(screen, tmp_path):
    parts = [run(*screen, Pooled(), folds=[i], path=tmp_path) for i in (2, 0, 1)]
    assert [part["fold"].item() for part in parts] == [2, 0, 1]
    assert all((part["category"] != "").all() for part in parts)
    read = Pooled()
    whole = run(*screen, read, path=tmp_path)
    assert not read.fitted_to
    assert whole.drop_vars("seconds").identical(run(*screen, Pooled()).drop_vars("seconds"))


def test_a_failing_model_is_named_and_the_others_are_kept(screen, tmp_path):
    failing = Pooled(name="failing", raises={1: FloatingPointError("does not converge")})
    with pytest.raises(FloatingPointError) as caught:
        run(*screen, [Pooled(), failing], path=tmp_path)
    assert caught.value.__notes__ == ["This was model 'failing' in fold 1 of the cross-validation."]
    done = sorted(file.name for file in tmp_path.glob("*.nc"))
    assert done == ["fold0_failing.nc", "fold0_pooled_cells.nc", "fold1_pooled_cells.nc"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: there 0, here 1"),
        ({"n_folds": 4}, "n_folds: there 3, here 4"),
        ({"n_bins": 9}, "n_bins: there 15, here 9"),
        ({"control": "ctrl"}, "control: there 'control', here 'ctrl'"),
        ({"layer": "other"}, "layer: there None, here 'other'; expression: there"),
        ({"context_key": "one"}, "contexts: there"),
    ],
)
def test_a_folder_of_other_settings(screen, tmp_path, change, named):
    adata = screen[0].copy()
    adata.layers["other"] = adata.X * 0.5
    adata.obs["one"] = "context"
    run(adata, screen[1], Pooled(), path=tmp_path, folds=0)
    with pytest.raises(ValueError, match=f"was made with other settings.*{named}"):
        run(adata, screen[1], Pooled(), path=tmp_path, **change)


def test_a_folder_of_other_data(screen, tmp_path):
    run(*screen, Pooled(), path=tmp_path, folds=0)
    relabeled = screen[0].copy()
    relabeled.obs["perturbation"] = relabeled.obs["perturbation"].to_numpy()[::-1]
    renamed = screen[0].copy()
    renamed.var_names = [f"{name}X" for name in renamed.var_names]
    exchanged = screen[0].copy()
    exchanged.X = exchanged.X[:, ::-1]  # of the same sum
    cases = {
        "perturbation labels: there": (relabeled, screen[1]),
        "genes: there": (renamed, screen[1]),
        "cells: there": (screen[0][:-1], screen[1]),
        "expression: there": (exchanged, screen[1]),
        "embeddings: there": (screen[0], screen[1] + np.eye(*screen[1].shape)),
    }
    for named, (adata, embeddings) in cases.items():
        with pytest.raises(ValueError, match=named):
            run(adata, embeddings, Pooled(), path=tmp_path)
    other_layout = screen[0].copy()
    other_layout.X = scipy.sparse.csc_matrix(other_layout.X)
    run(other_layout, screen[1], Pooled(raises={0: AssertionError("fitted again")}), path=tmp_path, folds=0)


def test_other_things_in_the_folder(screen, tmp_path):
    run(*screen, Pooled(), path=tmp_path, folds=0)
    with pytest.raises(ValueError, match=r"model 'pooled_cells' in .* has other settings. There Pooled\(smoothing=1.0"):
        run(*screen, Pooled(smoothing=2), path=tmp_path)
    (tmp_path / "fold0_pooled_cells.nc").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"cannot read .*fold0_pooled_cells.nc: delete it"):
        run(*screen, Pooled(), path=tmp_path)
    splits = json.loads((tmp_path / "splits.json").read_text())
    (tmp_path / "splits.json").write_text(json.dumps({**splits, "folds": splits["folds"][::-1]}))
    with pytest.raises(ValueError, match=r"splits.json has other folds"):
        run(*screen, Pooled(), path=tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"is damaged: settings.json or splits.json cannot be read .*another path"):
        run(*screen, Pooled(), path=tmp_path)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="is not a cross-validation"):
        run(*screen, Pooled(), path=tmp_path)
    with pytest.raises(ValueError, match="is not a cross-validation"):
        run(*screen, Pooled(), path=tmp_path / "splits.json")


# -------------------------------------------------------------------------------------------------------------- errors


def test_histograms_are_refused(screen):
    with pytest.raises(TypeError, match="the bins of histograms have seen the held-out cells"):
        run(count_histograms(screen[0]), screen[1], Pooled())


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        (["gears"], ValueError, "no model 'gears'; there are: distpert, control"),
        ([], ValueError, "no model to cross-validate"),
        ([Pooled(), Pooled(smoothing=2)], ValueError, "two models are named 'pooled_cells'"),
        ([("a/b", Pooled())], ValueError, "model name 'a/b' names files: use only letters"),
        ([Pooled], TypeError, "a model is a name, an object with name and fit"),
        ([3], TypeError, "got 3"),
    ],
)
def test_models_that_are_none(screen, models, error, message):
    with pytest.raises(error, match=message):
        run(*screen, models)


def test_a_model_that_does_not_tell_its_settings(screen, tmp_path):
    class Silent:
        name = "silent"
        fit = Pooled().fit

    assert "silent" in run(*screen, Silent(), folds=0)["model"]
    with pytest.raises(ValueError, match=r"model 'silent' prints as .* make it a dataclass"):
        run(*screen, Silent(), path=tmp_path)


@pytest.mark.parametrize("folds", [-1, [True], 1.5])
def test_folds_are_numbers(screen, folds):
    with pytest.raises(ValueError, match="folds must be"):
        run(*screen, Pooled(), folds=folds)


@pytest.mark.parametrize("folds", [[], [3], [0, 0], range(4)])
def test_folds_that_are_not_there(screen, folds):
    with pytest.raises(ValueError, match="folds are numbered from 0 to 2, each at most once"):
        run(*screen, Pooled(), folds=folds)


def test_found_before_any_work(screen):
    unfit = Pooled(raises={0: AssertionError("work was begun")})
    for options, message in (
        ({"n_bins": 1}, "n_bins must be at least 2"),
        ({"n_folds": 1}, "n_folds must be at least 2"),
        ({"n_folds": 10}, "9 perturbations cannot be split into 10 folds"),
        ({"control": "none"}, "no cell is labeled 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            run(*screen, unfit, **options)
    with pytest.raises(ValueError, match="3 of 9 perturbations have 2 cells and an embedding; at least 4"):
        run(screen[0], screen[1].iloc[:3], unfit)
    with (
        pytest.warns(UserWarning, match="never held out"),
        pytest.raises(ValueError, match="fold 0 leaves 2 perturbations"),
    ):
        run(screen[0], screen[1].iloc[:4], unfit, n_folds=2)
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        run(*screen, "distpert", num_draws=0)


# ----------------------------------------------------------------------------------------------------- how it behaves


def test_progress(screen, capsys):
    run(*screen, Pooled())
    assert capsys.readouterr().err == ""
    run(*screen, Pooled(), progress_bar=True, folds=[2])
    shown = capsys.readouterr().err
    assert "cross-validation" in shown
    assert "fold 2, pooled_cells" in shown
    assert "1/1" in shown


def test_neither_densified_nor_copied():
    n_cells, n_genes = 10_000, 2000
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random(n_cells, n_genes, 0.02, "csr", np.float32, rng)
    labels = rng.choice(["control", *(f"P{i}" for i in range(6))], n_cells)
    adata = anndata.AnnData(matrix, obs={"perturbation": labels})
    before = matrix.copy()
    embeddings = {f"P{i}": rng.normal(size=3) for i in range(6)}
    tracemalloc.start()
    scores = run(adata, embeddings, Pooled(means=True))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n_cells * n_genes * 4 / 2
    assert (before != adata.X).nnz == 0
    assert isinstance(scores, xr.Dataset)
