"""The report on a cross-validation: tables and sentences against numbers worked out by hand, and one run as it is."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import distpert
from distpert.cross_validation import Distpert

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "validation"

if not (SCRIPTS / "run.py").exists():
    pytest.skip("validation/ is not part of this distribution", allow_module_level=True)


@pytest.fixture(scope="module")
def scripts():
    """The scripts find each other as they do when run: by the folder that they are in."""
    names = ("report", "pictures", "run", "screens", "model_selection", "calibrate", "distance")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.syspath_prepend(SCRIPTS)
        yield {name: pytest.importorskip(name) for name in names}
        for name in names:
            del sys.modules[name]


@pytest.fixture
def report(scripts):
    return scripts["report"]


# Held out: A in fold 0, B in fold 1, A+B in both, each time with another category.
NAN = np.nan
CATEGORY = [["unseen_single", "combo_seen1", ""], ["", "combo_seen0", "unseen_single"]]
CRAMER = {  # A, A+B, B
    "distpert": [[0.010, 0.020, NAN], [NAN, 0.040, 0.020]],
    "control": [[0.014, 0.030, NAN], [NAN, 0.050, 0.026]],
    "ridge": [[NAN] * 3] * 2,
}
PEARSON = {
    "distpert": [[0.50, 0.40, NAN], [NAN, 0.20, 0.30]],
    "control": [[0.90, 0.90, NAN], [NAN, 0.90, 0.90]],  # what its smoothing happens to give
    "ridge": [[0.60, 0.40, NAN], [NAN, 0.20, 0.60]],
}
RMAE = {
    "distpert": [[0.20, 0.10, NAN], [NAN, 0.30, 0.40]],
    "control": [[0.10, 0.20, NAN], [NAN, 0.30, 0.60]],
    "ridge": [[0.10, 0.05, NAN], [NAN, 0.25, 0.30]],
}


@pytest.fixture
def scores():
    dims = ("model", "fold", "perturbation")

    def layed(table, better):
        return dims, np.array(list(table.values())), {"better": better}

    ceiling = [[0.012, 0.5, NAN], [NAN, 0.7, 0.014]]
    return xr.Dataset(
        {
            "cramer": layed(CRAMER, "lower"),
            "pearson_shift": layed(PEARSON, "higher"),
            "rmae_mean": layed(RMAE, "lower"),
            "ceiling_cramer": (dims[1:], ceiling, {"better": ""}),
            "n_cells": (dims[1:], [[50, 60, NAN], [NAN, 60, 70]], {"better": ""}),
            "seconds": (dims[:2], [[10.0, 6.0], [0.0, 0.0], [1.0, 2.0]]),
        },
        coords={
            "model": list(CRAMER),
            "fold": [0, 1],
            "perturbation": ["A", "A+B", "B"],
            "category": (dims[1:], CATEGORY),
        },
    )


# ------------------------------------------------------------------------------------------------------------- tables


def test_categories_are_told_apart_where_there_are_several(report, scores):
    assert report.categories(scores) == ["all", "unseen_single", "combo_seen0", "combo_seen1"]
    assert report.categories(scores.sel(perturbation=["A", "B"])) == ["all"]
    assert report.title_of("combo_seen3") == "Combinations, genes seen: 3"


def test_means_count_a_perturbation_once(report, scores):
    table = report.mean_scores(scores)
    assert table.index.tolist() == ["distpert", "control", "ridge", report.HALVES]
    assert table.loc["distpert", "cramer"] == pytest.approx((0.010 + (0.020 + 0.040) / 2 + 0.020) / 3)
    assert table.loc[report.HALVES, "cramer"] == pytest.approx((0.012 + (0.5 + 0.7) / 2 + 0.014) / 3)
    assert np.isnan(table.loc["ridge", "cramer"])
    assert np.isnan(table.loc[report.HALVES, "rmae_mean"])
    singles = report.mean_scores(scores, "unseen_single")
    assert singles.loc["control", "cramer"] == pytest.approx((0.014 + 0.026) / 2)
    assert singles.loc[report.HALVES, "cramer"] == pytest.approx((0.012 + 0.014) / 2)


def test_the_control_has_no_shift_from_itself(report, scores):
    cleaned = report.without_artefacts(scores)
    assert np.isnan(cleaned["pearson_shift"].sel(model="control")).all()
    xr.testing.assert_identical(cleaned.drop_vars("pearson_shift"), scores.drop_vars("pearson_shift"))
    assert cleaned["pearson_shift"].attrs == {"better": "higher"}


def test_differences_are_paired_and_by_category(report, scores):
    table = report.differences(scores).set_index(["category", "score", "model"])
    row = table.loc["unseen_single", "cramer", "control"]
    assert row["difference"] == pytest.approx((0.004 + 0.006) / 2)
    assert row["ratio"] == pytest.approx(0.020 / 0.015)
    assert (row["lower"], row["upper"]) == pytest.approx((0.004, 0.006))  # of two perturbations: either one twice
    assert row["n_perturbations"] == 2
    assert table.loc[("all", "rmae_mean", "ridge"), "difference"] == pytest.approx((-0.1 - 0.05 - 0.1) / 3)
    assert table.loc[("all", "cramer", "ridge"), "n_perturbations"] == 0
    assert set(table.index.get_level_values("category")) == {"all", "unseen_single"}  # one combination is too few


def test_the_best_is_bold_and_ceilings_stand_where_they_tell_something(report, scores):
    scores = report.without_artefacts(scores)
    better = {name: array.attrs.get("better", "") for name, array in scores.data_vars.items()}

    def rows(category):
        return report.score_rows(report.mean_scores(scores, category), better, "distpert")

    head, distpert_row, control, ridge, halves = rows("unseen_single")
    assert head == ["", "Cramér", "RMAE mean", "Pearson from control"]
    assert distpert_row == ["distpert", "**0.01500**", "0.3000", "0.400"]
    assert control == ["control", "0.02000", "0.3500", "–"]
    assert ridge == ["ridge", "–", "**0.2000**", "**0.600**"]
    assert halves == [report.HALVES, "0.01300", "–", "–"]  # better than both
    assert rows("combo_seen0")[-1][1] == "–"  # 0.7, worse than all


def test_numbers(report):
    assert report.number(-0.00012, 3) == "0.000"
    assert report.number(-0.0125, 2, sign=True) == "−0.01"
    assert report.number(0.5, 2, sign=True) == "+0.50"
    assert report.number(np.nan, 2) == "–"
    assert report.decimals(pd.Series([0.003, -0.004, 0.0, np.nan, np.inf])) == 5
    assert report.decimals(pd.Series([0.0, np.nan])) == 4
    assert report.markdown([["", "a"], ["b", "1"]]) == "|  | a |\n|---|---|\n| b | 1 |"


# ---------------------------------------------------------------------------------------------------------- sentences


def compared(score, better, **models):
    columns = ["model", "difference", "lower", "upper"]
    table = pd.DataFrame([[name, *values] for name, values in models.items()], columns=columns)
    return table.assign(score=score, better=better)


def test_where_it_is_not_best_is_said(report):
    table = compared(
        "cramer", "lower",
        additive=(-0.0012, -0.0020, -0.0004), pooled=(-0.0001, -0.0010, 0.0008),
        network=(0.0010, -0.0002, 0.0022), control=(0.0020, 0.0010, 0.0030), ridge=(NAN, NAN, NAN),
    )  # fmt: skip
    assert report.findings(table) == [
        "Cramér: distpert is not best. `additive` is better by 0.00120 (0.00040 to 0.00200); `pooled` is better by "
        "0.00010 (−0.00080 to 0.00100), but the interval includes 0.",
        "Cramér: distpert is better, but the interval includes 0: than `network` by 0.00100 (−0.00020 to 0.00220).",
    ]


def test_for_correlations_more_is_better(report):
    table = compared("pearson_shift", "higher", ridge=(0.2, 0.1, 0.3), pooled=(-0.1, -0.3, 0.1), network=(-1, -2, -0.5))
    assert report.findings(table, "mine") == [
        "Pearson from control: mine is not best. `ridge` is better by 0.200 (0.100 to 0.300).",
        "Pearson from control: mine is better, but the interval includes 0: than `pooled` by 0.100 (−0.100 to 0.300).",
    ]


def test_nothing_is_said_of_what_is_clear_and_equal_scores_are_no_lead(report):
    assert report.findings(compared("nll", "lower", pooled=(0.1, 0.05, 0.2))) == []
    assert len(report.findings(compared("nll", "lower", same=(0.0, 0.0, 0.0)))) == 1
    infinite = compared("nll", "lower", hard=(np.inf, NAN, NAN), pooled=(0.1, 0.05, 0.2))
    assert report.findings(infinite) == []


def test_the_page(report, scores):
    scores = report.without_artefacts(scores)
    pictures = {"all": ["gain.png"], "unseen_single": ["one.png"]}
    text = report.page("Screen", {"cells": "180"}, scores, report.differences(scores), pictures)
    assert text.startswith("# Screen\n")
    assert "| cells | 180 |" in text
    assert "- Pearson from control: distpert is not best. `ridge` is better by 0.200 (0.100 to 0.300)." in text
    assert text.index("## Single genes, unseen") < text.index("one.png") < text.index("## Combinations, genes seen: 0")
    assert text.count("Too few perturbations to compare models.") == 2
    assert "![gain.png](gain.png)" in text
    assert "| distpert | 8.00 | 6.00 | 10.00 |" in text
    assert "nan" not in text


def test_what_a_model_lacks_is_said(report, scores):
    for name in ("pearson_shift", "rmae_mean"):
        scores[name].loc[{"model": "ridge", "perturbation": "B"}] = np.nan
    with pytest.warns(UserWarning, match="ridge lack scores"):
        table = report.differences(scores)
    assert "Of these perturbations `ridge` lacks 1;" in report.page("Screen", {}, scores, table, {})


# ----------------------------------------------------------------------------------------------------------- pictures


def test_pictures_show_what_the_tables_say(scripts, scores):
    import matplotlib.pyplot as plt

    table = scripts["report"].differences(scripts["report"].without_artefacts(scores))
    figure = scripts["pictures"].draw_differences(table[table["category"] == "unseen_single"])
    (panel,) = (ax for ax in figure.axes if ax.get_title() == "Cramér")
    points = {float(line.get_ydata()[0]): line.get_xdata() for line in panel.lines if line.get_marker() == "o"}
    assert list(points) == [0.0]  # control; ridge has none
    assert points[0.0] == pytest.approx([0.005])
    assert scripts["pictures"].best_other(scores, "all") == "control"
    gain = scripts["pictures"].draw_gain(scores, ["unseen_single"])
    (cells, effect) = gain.axes
    points = [[line.get_xdata().tolist(), line.get_ydata().tolist()] for line in (cells.lines[1], effect.lines[1])]
    np.testing.assert_allclose(points, [[[50, 70], [0.004, 0.006]], [[0.014, 0.026], [0.004, 0.006]]])
    plt.close(figure)
    plt.close(gain)


# -------------------------------------------------------------------------------------------------------------- peers


@pytest.fixture
def peer_table(scores):
    """As peers/score.py writes it: a baseline that both have, and a peer that lacks A+B."""
    rows = []
    for fold, label, n, value in [(0, "A", 50, 0.014), (0, "A+B", 60, 0.030), (1, "B", 70, 0.026)]:
        rows.append({"method": "control", "fold": fold, "perturbation": label, "n_cells": n, "cramer": value})
        if label != "A+B":
            peer = {"cramer": 0.5, "rmae_mean": 0.7, "pearson_shift": 0.1}
            rows.append({"method": "gears", "fold": fold, "perturbation": label, "n_cells": n, **peer})
    return pd.DataFrame(rows)


def test_peers_are_put_beside(scripts, scores, peer_table, tmp_path):
    peer_table.to_csv(tmp_path / "scores.csv", index=False)
    both = scripts["run"].add_peers(scores, tmp_path)
    assert both["model"].to_numpy().tolist() == ["distpert", "control", "ridge", "gears"]
    xr.testing.assert_identical(both.isel(model=slice(3)), scores)
    assert both["cramer"].sel(model="gears", fold=1, perturbation="B") == 0.5
    assert np.isnan(both["cramer"].sel(model="gears", perturbation="A+B")).all()
    assert np.isnan(both["seconds"].sel(model="gears")).all()


def test_peers_of_other_cells_are_refused(scripts, scores, peer_table, tmp_path):
    add_peers, file = scripts["run"].add_peers, tmp_path / "scores.csv"
    peer_table.assign(n_cells=peer_table["n_cells"] + 1).to_csv(file, index=False)
    with pytest.raises(ValueError, match="of other cells or folds"):
        add_peers(scores, tmp_path)
    peer_table.assign(cramer=0.9).to_csv(file, index=False)
    with pytest.raises(ValueError, match="control has other scores"):
        add_peers(scores, tmp_path)
    peer_table[peer_table["method"] == "control"].to_csv(file, index=False)
    with pytest.raises(ValueError, match="no method"):
        add_peers(scores, tmp_path)


# ---------------------------------------------------------------------------------------------------------------- run


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    small.adata.write_h5ad(folder / "screen.h5ad")
    small.embeddings.to_csv(folder / "embeddings.csv")
    return ["--data", str(folder / "screen.h5ad"), "--embeddings", str(folder / "embeddings.csv")]


def test_a_run_from_end_to_end(scripts, files, tmp_path, capsys):
    out = tmp_path / "out"
    settings = [*files, "--out", str(out), "--models", "control", "pooled", "--reference", "pooled", "--n-folds", "3"]
    scripts["run"].main(settings)
    assert {file.name for file in out.iterdir()} == {
        "folds", "report.md", "scores.csv", "comparison.csv", "by_perturbation.csv", "cost.csv", "differences.png",
        "gain.png",
    }  # fmt: skip
    rows = pd.read_csv(out / "by_perturbation.csv")
    assert rows.groupby("model")["perturbation"].nunique().to_dict() == {"control": 6, "pooled": 6}
    means = pd.read_csv(out / "scores.csv", index_col=["category", "model"])
    by_model = rows.groupby("model")["cramer"].mean()
    assert means.loc[("all", "pooled"), "cramer"] == pytest.approx(by_model["pooled"])
    compared = pd.read_csv(out / "comparison.csv").set_index(["score", "model"])
    assert compared.loc[("cramer", "control"), "difference"] == pytest.approx(by_model["control"] - by_model["pooled"])
    assert np.isnan(compared.loc[("pearson_shift", "control"), "difference"])
    assert len(pd.read_csv(out / "cost.csv")) == 6
    text = (out / "report.md").read_text()
    assert "6 single and 0 combined perturbations" in text
    assert "| perturbations | 6, of which 6 were held out and scored |" in text
    assert str(tmp_path) not in text
    capsys.readouterr()

    kept = (out / "folds" / "fold0_pooled.nc").stat().st_mtime_ns
    scripts["run"].main(settings)  # goes on where it stopped, here at the end
    assert (out / "folds" / "fold0_pooled.nc").stat().st_mtime_ns == kept
    assert (out / "report.md").read_text() == text


def test_leave_one_out_has_a_fold_for_each_gene(scripts, files, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(distpert, "cross_validate", lambda *args, **options: asked.update(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scripts["run"].main([*files, "--out", str(tmp_path), "--leave-one-out", "--context-key", "none"])
    assert asked["n_folds"] == 6
    assert asked["context_key"] is None
    labels = pd.Series(["control", "A", "A", "B+A", "B+A", "C", "D", "D"])
    embeddings = distpert.embeddings.sources.as_embeddings({"A": [1, 0], "B": [0, 1], "C": [1, 1]})
    assert sorted(scripts["run"].can_be_held_out(labels, embeddings)) == ["A", "B+A"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "control", "pooled"], "--reference distpert is not among --models"),
        (["--models", "distpert"], "at least two"),
        (["--peers", "nowhere"], "peers/score.py --out nowhere makes it"),
        (["--models", "distpert", "magic"], "invalid choice"),
    ],
)
def test_mistakes_are_told_before_any_work(scripts, options, message, capsys):
    with pytest.raises(SystemExit):
        scripts["run"].main(["--data", "x.h5ad", "--embeddings", "e.npz", "--out", "out", *options])
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- model selection


def test_each_variant_changes_one_thing(scripts):
    (first, default), *others = scripts["model_selection"].variants(5)
    assert first == "default"
    assert default == Distpert(num_draws=5)
    assert len({name for name, _ in others} - {"default"}) == len(others)
    assert len({repr(model) for _, model in others}) == len(others)
    for _, model in others:
        changed = [name for name in vars(default) if getattr(model, name) != getattr(default, name)]
        assert len(changed) == 1
        assert changed[0] in ("n_factors", "priors", "optimization")


def test_model_selection_from_end_to_end(scripts, files, tmp_path, capsys):
    settings = [*files, "--out", str(tmp_path), "--variants", "epochs=25", "--n-folds", "3", "--folds", "0"]
    settings += ["--draws", "5"]
    scripts["model_selection"].main(settings)
    assert "epochs=25" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "selection.csv", index_col="model")
    assert table.index.tolist() == ["default", "epochs=25"]
    assert (table["seconds"] > 0).all()
    compared = pd.read_csv(tmp_path / "differences.csv").set_index(["model", "score"])
    difference = compared.loc[("epochs=25", "cramer"), "difference"]
    assert difference == pytest.approx(table.loc["epochs=25", "cramer"] - table.loc["default", "cramer"])
    assert difference != 0
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "folds").glob("*.nc")}
    assert len(kept) == 2
    scripts["model_selection"].main(settings)  # goes on where it stopped, here at the end
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "folds").glob("*.nc")} == kept
    with pytest.raises(SystemExit):
        scripts["model_selection"].main([*settings, "--variants", "untempered"])


# -------------------------------------------------------------------------------------------------------- calibration


def test_calibration_from_end_to_end(scripts, files, tmp_path, capsys):
    # Responses add 2 to 3 % to widths of so few cells: with few draws, quantiles would not tell.
    settings = [*files, "--out", str(tmp_path), "--n-folds", "3", "--draws", "1000"]
    scripts["calibrate"].main(settings)
    text = (tmp_path / "calibration.md").read_text()
    assert "6 held-out perturbations" in text
    assert "| of 20 bars outside their band | of 20 bars outside the simultaneous band | p-value of flat" in text
    assert (tmp_path / "calibration.png").exists()
    rows = pd.read_csv(tmp_path / "calibration.csv").set_index(["method", "moment", "level"])
    for method in ("distpert", "dirichlet_alone"):
        tables = [xr.load_dataset(tmp_path / "folds" / f"{method}_{i}.nc") for i in range(3)]
        assert sorted(label for table in tables for label in table["perturbation"].to_numpy()) == sorted(
            f"GENE{i}" for i in range(6)
        )
        held = np.mean([table["coverage_by_perturbation"].sel(moment="mean", level=0.9).mean() for table in tables])
        assert rows.loc[(method, "mean", 0.9), "coverage"] == pytest.approx(held)
    assert rows.loc[("dirichlet_alone", "mean", 0.9), "width"] < rows.loc[("distpert", "mean", 0.9), "width"]
    capsys.readouterr()

    kept = (tmp_path / "folds" / "distpert_0.nc").stat().st_mtime_ns
    scripts["calibrate"].main(settings)  # goes on where it stopped, here at the end
    assert (tmp_path / "folds" / "distpert_0.nc").stat().st_mtime_ns == kept
    assert (tmp_path / "calibration.md").read_text() == text


def test_width_and_error_rise_with_distance(scripts, tmp_path, capsys):
    scripts["distance"].main(["--out", str(tmp_path), "--screens", "1", "--draws", "30"])
    text = (tmp_path / "distance.md").read_text()
    assert capsys.readouterr().out.strip() in text
    assert "80 held-out perturbations" in text
    rows = [[float(cell) for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[2:3].isdigit()]
    distance, width, error, _, _ = np.transpose(rows)
    assert len(distance) == 4
    assert (np.diff(distance) > 0).all()
    assert width[-1] > width[0]
    assert error[-1] > error[0]
