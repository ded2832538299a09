"""Shifts from a reference, against loops over drawn moments."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

import distpert
from distpert.histograms.moments import MOMENTS
from distpert.predictions.effects import mean_of_smaller

NUM_DRAWS, ROPE = 41, 0.2
ALL = slice(0, 14)


@pytest.fixture(scope="module")
def prediction(context_fit):
    """One in training, one unseen, a pair, in both contexts."""
    labels = ["GENE3", "GENE11", "GENE1+GENE2"]
    return context_fit.predict(labels, num_draws=NUM_DRAWS, seed=2, progress_bar=False)


@pytest.fixture(scope="module")
def pairs(context_fit):
    return context_fit.predict(["GENE1+GENE2", "GENE3+GENE11"], num_draws=NUM_DRAWS, seed=2, progress_bar=False)


@pytest.fixture(scope="module")
def constant(small):
    """A prediction with a gene that is constant in the data, at another value than zero."""
    adata = small.adata.copy()
    adata.X[:, 3] = 2.3
    short = distpert.Optimization(max_epochs=2, min_steps=1)
    fit = distpert.fit(adata, small.embeddings, optimization=short, progress_bar=False)
    return fit.predict(["GENE3", "GENE6"], num_draws=9, progress_bar=False)


def moments_of(histograms, centers):
    """Moments (moment, draw, gene) of histograms (draw, gene, bin), written out, and log E[e^x − 1]."""
    h = histograms.astype(float)
    mean = (h * centers).sum(axis=-1)
    central = [(h * (centers - mean[..., None]) ** power).sum(axis=-1) for power in (2, 3, 4)]
    raw = (h * (np.exp(centers) - 1)).sum(axis=-1)
    return np.stack([mean, central[0], central[1] / central[0] ** 1.5, central[2] / central[0] ** 2 - 3, np.log(raw)])


def reference_of(prediction, reference, draws_of, p, c):
    """Moments of the reference (moment, draw, gene)."""
    fit, centers = prediction.posterior, prediction.centers.astype(float)
    context = fit.contexts.index(prediction.contexts[c])
    shared = fit.shared.draw(context, ALL, prediction.num_draws, prediction.seed)
    control = moments_of(softmax(shared.control.astype(float), axis=-1), centers)
    if reference == "control":
        return control
    if reference == "mean":
        mean = fit.parameters["response"].to_numpy().mean(axis=0)
        logits = shared.base + np.einsum("k,dkgb->dgb", mean, shared.loading)
        return moments_of(softmax(logits.astype(float), axis=-1), centers)
    total = control
    for gene in prediction.perturbations[p].split("+"):
        options = {"num_draws": prediction.num_draws, "seed": prediction.seed, "progress_bar": False}
        single = draws_of(fit.predict(gene, context=prediction.contexts[c], **options))[:, 0, 0]
        total = total + moments_of(single, centers) - control
    return total


def shift_by_hand(prediction, reference, draws_of):
    """Shifts (moment, draw, perturbation, context, gene)."""
    draws, centers = draws_of(prediction), prediction.centers.astype(float)
    out = np.empty((5, prediction.num_draws, *draws.shape[1:4]))
    for p in range(draws.shape[1]):
        for c in range(draws.shape[2]):
            expected = reference_of(prediction, reference, draws_of, p, c)
            out[:, :, p, c] = moments_of(draws[:, p, c], centers) - expected
    return out


@pytest.mark.parametrize("reference", ["control", "mean", "additive"])
def test_every_variable_by_loop(prediction, pairs, draws_of, reference):
    predicted = pairs if reference == "additive" else prediction
    effects = predicted.effects(reference=reference, rope=ROPE, ci_prob=0.8)
    shift = shift_by_hand(predicted, reference, draws_of)
    posterior, n = predicted.posterior, NUM_DRAWS
    for m, moment in enumerate(MOMENTS):
        found = effects.sel(moment=moment)
        for p, label in enumerate(predicted.perturbations):
            for c, context in enumerate(predicted.contexts):
                here = found.sel(perturbation=label, context=context)
                lfsr = []
                for g in range(14):
                    draws, of = shift[m, :, p, c, g], here.isel(gene=g)
                    quantiles = [float(of[name]) for name in ("lower", "shift", "upper")]
                    np.testing.assert_allclose(quantiles, np.quantile(draws, [0.1, 0.5, 0.9]), rtol=2e-3, atol=2e-4)
                    up, down = (draws > 0).sum(), (draws < 0).sum()
                    assert float(of["prob_positive"]) == pytest.approx((up + 0.5) / (up + down + 1), rel=1e-5)
                    lfsr.append((min((draws >= 0).sum(), (draws <= 0).sum()) + 0.5) / (n + 1))
                    assert float(of["lfsr"]) == pytest.approx(lfsr[-1], rel=1e-5)
                    h, x = posterior.control[c, g], predicted.centers[g].astype(float)
                    variance = h @ (x - h @ x) ** 2
                    width = ROPE * [np.sqrt(variance), variance, 1, 1][m]
                    inside = (abs(draws) <= width).mean()
                    assert float(of["prob_rope"]) == pytest.approx(inside, abs=1.01 / n * (0 < inside < 1))
                smaller = [np.mean([other for other in lfsr if other <= one]) for one in lfsr]
                np.testing.assert_allclose(here["s_value"], smaller, rtol=1e-5)
    fold = np.quantile(shift[4], [0.1, 0.5, 0.9], axis=0) / np.log(2)
    for name, expected in zip(("_lower", "", "_upper"), fold, strict=True):
        np.testing.assert_allclose(effects[f"log2_fold_change{name}"], expected, rtol=2e-3, atol=2e-4)


def test_layout(prediction, constant):
    effects = prediction.effects()
    dims = ("moment", "perturbation", "context", "gene")
    moments = {"shift", "lower", "upper", "prob_positive", "lfsr", "s_value", "prob_rope"}
    folds = {"log2_fold_change", "log2_fold_change_lower", "log2_fold_change_upper"}
    assert set(effects) == moments | folds
    assert all(effects[name].dims == dims for name in moments)
    assert all(effects[name].dims == dims[1:] for name in folds)
    assert effects["moment"].to_numpy().tolist() == list(MOMENTS)
    assert effects["perturbation"].to_numpy().tolist() == list(prediction.perturbations)
    assert effects["gene"].to_numpy().tolist() == list(prediction.genes)
    assert {name: effects.attrs[name] for name in ("reference", "rope", "ci_prob")} == {
        "reference": "control",
        "rope": 0.0,
        "ci_prob": 0.9,
    }
    assert np.isfinite(effects.to_array()).all()
    assert constant.effects()["lfsr"].dims == ("moment", "perturbation", "gene")
    for name in moments - {"lower", "upper"} | folds:
        assert effects[name].attrs["long_name"], name


def test_order_of_statistics(prediction):
    effects = prediction.effects(rope=0.3)
    assert (effects["lower"] <= effects["shift"]).all()
    assert (effects["shift"] <= effects["upper"]).all()
    assert (effects["lfsr"] > 0).all() and (effects["lfsr"] < 0.5 + 1 / NUM_DRAWS).all()
    assert (effects["s_value"] <= effects["lfsr"] + 1e-6).all()
    # The sign of the median is the likelier one.
    clear = effects["lfsr"] < 0.3
    assert ((effects["shift"] > 0) == (effects["prob_positive"] > 0.5)).where(clear, True).all()
    wider = prediction.effects(rope=0.6)
    assert (wider["prob_rope"] >= effects["prob_rope"]).all()
    assert (prediction.effects(rope=1e9)["prob_rope"] == 1).all()
    assert (prediction.effects()["prob_rope"] == 0).all()


def test_true_shifts_are_found(context_screen, prediction):
    """Of clear shifts of the mean, nearly all have the true sign."""
    effects = prediction.effects().sel(moment="mean", perturbation=["GENE3", "GENE11"])
    truth = context_screen.truth.sel(perturbation=["GENE3", "GENE11"])
    centers = context_screen.truth["center"].to_numpy()
    mean = (truth["histogram"].to_numpy() * centers).sum(axis=-1)
    control = prediction.posterior.control_moments()["mean"].to_numpy()
    clear = effects["s_value"].to_numpy() < 0.02
    assert clear.sum() >= 6
    right = (np.sign(mean - control) == np.sign(effects["shift"].to_numpy()))[clear]
    assert right.mean() > 0.9


# ---------------------------------------------------------------------------------------------------------- coherence


def test_both_sides_are_of_the_same_draw(context_fit):
    """A perturbation that does nothing has no shift in any draw, however uncertain the controls are."""
    parameters = context_fit.parameters
    uncertain = parameters.assign(
        level_scale=parameters["level_scale"] * 0 + 0.5,
        log_concentration=parameters["log_concentration"] * 0 + 18,  # no variation beside
        log_concentration_scale=parameters["log_concentration_scale"] * 0,
        log_concentration_spread=np.float32(0),
    )
    fit = replace(context_fit, parameters=uncertain)
    prediction = fit.predict("GENE11", num_draws=30, progress_bar=False)
    nothing = replace(prediction, inactive=np.ones_like(prediction.inactive))
    effects = nothing.effects(ci_prob=0.98).sel(moment="mean")
    width = effects["upper"] - effects["lower"]
    of_mean = nothing.summary(0.98)["mean"]
    spread = of_mean.sel(statistic="upper", drop=True) - of_mean.sel(statistic="lower", drop=True)
    assert (spread > 0.1).all()
    assert (width < 0.03 * spread).all()
    assert (abs(effects["shift"]) < 0.01 * spread).all()


def test_the_mean_response_has_no_shift_from_the_mean(context_fit):
    prediction = context_fit.predict("GENE11", num_draws=30, progress_bar=False)
    response = context_fit.mean_response(30)[:, None]
    typical = replace(prediction, response=response, on_target=0 * prediction.on_target)
    from_mean, from_control = (typical.effects(reference=name).sel(moment="mean") for name in ("mean", "control"))
    assert (from_mean["lower"] < 0).mean() > 0.9
    assert (from_mean["upper"] > 0).mean() > 0.9
    assert float(abs(from_mean["shift"]).mean()) < 0.5 * float(abs(from_control["shift"]).mean())


def test_company_makes_no_difference_to_the_additive_reference(pairs):
    """Draws of single genes are those of their own predictions, whatever is predicted with them."""
    alone = pairs.select("GENE11+GENE3", "context1").effects(reference="additive")
    together = pairs.effects(reference="additive").sel(perturbation=["GENE11+GENE3"], context=["context1"])
    for name in alone:
        np.testing.assert_allclose(alone[name], together[name], rtol=1e-4, atol=1e-6)


def test_a_pair_is_compared_with_its_own_genes(pairs):
    """The two pairs, with responses exchanged, have other interactions."""
    exchanged = replace(pairs, response=pairs.response[:, ::-1])
    first, second = (each.effects(reference="additive")["shift"] for each in (pairs, exchanged))
    assert float(abs(first - second).max()) > 0.01


def test_company_makes_no_difference(prediction):
    whole = prediction.effects()
    np.testing.assert_array_equal(prediction.effects()["shift"], whole["shift"])
    part = prediction.select("GENE11", "context0").effects()
    here = whole.sel(perturbation=["GENE11"], context=["context0"])
    for name in part:
        np.testing.assert_allclose(part[name], here[name], rtol=1e-4, atol=1e-6)


def test_effects_of_chains(sampled):
    """Each draw has the controls, the loadings and the mean response of that draw."""
    prediction = sampled.predict(["GENE3", "GENE11"], num_draws=6, progress_bar=False)
    for reference in ("control", "mean"):
        effects = prediction.effects(reference=reference)
        assert np.isfinite(effects.to_array()).all()
        assert effects.attrs["reference"] == reference


# ------------------------------------------------------------------------------------------------------ constant genes


def test_constant_genes_never_change(constant):
    assert constant.training.constant_genes == ("GENE3",)
    for reference in ("control", "mean"):
        effects = constant.effects(reference=reference).sel(gene="GENE3")
        for name in ("shift", "lower", "upper", "log2_fold_change", "log2_fold_change_lower"):
            assert (effects[name] == 0).all(), name
        assert (effects["lfsr"] == 1).all()
        assert (effects["prob_positive"] == 0.5).all()
        assert (effects["prob_rope"] == 1).all()
    others = constant.effects().drop_sel(gene="GENE3")
    assert (others["lfsr"] < 1).all()
    assert (others["shift"] != 0).all()


# ------------------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "controls"}, r"reference must be one of control, mean, additive, not 'controls'"),
        ({"rope": -0.1}, r"rope must be a finite number of at least 0, not -0.1"),
        ({"rope": np.nan}, r"rope must be a finite number of at least 0, not nan"),
        ({"ci_prob": 0}, r"ci_prob must lie between 0 and 1, not 0"),
        ({"ci_prob": 90}, r"ci_prob must lie between 0 and 1, not 90"),
        (
            {"reference": "additive"},
            r"additive reference is for combinations A\+B, not for GENE3, GENE11; predict combinations alone",
        ),
    ],
)
def test_bad_arguments(prediction, options, message):
    with pytest.raises(ValueError, match=message):
        prediction.effects(**options)


def test_additive_reference_of_a_gene_without_embedding(pairs):
    """A pair may be in training although one of its genes cannot be predicted by itself."""
    unknown = replace(pairs, perturbations=("GENE1+GENE2", "GENE3+NOWHERE"))
    with pytest.raises(KeyError, match="no embedding for 1 gene: 'NOWHERE'"):
        unknown.effects(reference="additive")


# --------------------------------------------------------------------------------------------------------------- table


@pytest.fixture(scope="module")
def table(prediction):
    return prediction.effects(rope=0.1).to_dataframe().reset_index()


def test_table_as_csv(table, tmp_path):
    assert len(table) == 4 * 3 * 2 * 14
    table.to_csv(tmp_path / "effects.csv", index=False)
    back = pd.read_csv(tmp_path / "effects.csv")
    assert list(back.columns) == list(table.columns)
    for name in table.columns:
        if table[name].dtype.kind == "f":
            np.testing.assert_allclose(back[name], table[name], rtol=1e-6)
        else:
            assert back[name].tolist() == table[name].tolist()


def test_table_in_h5ad(table, context_screen, tmp_path):
    import anndata

    adata = context_screen.adata[:5].copy()
    adata.uns["effects"] = table
    adata.write_h5ad(tmp_path / "screen.h5ad")
    back = anndata.read_h5ad(tmp_path / "screen.h5ad").uns["effects"]
    assert list(back.columns) == list(table.columns)
    for name in table.columns:
        assert back[name].tolist() == table[name].tolist()


# ------------------------------------------------------------------------------------------------------------ s values


@pytest.mark.parametrize("n", [1, 30, 64, 65, 300])
@pytest.mark.parametrize("ties", [False, True])
def test_mean_of_smaller_by_loop(n, ties):
    values = np.random.default_rng(n).uniform(size=(2, 3, n))
    if ties:
        values = np.round(values, 1)
    ours = mean_of_smaller(values)
    for row, found in zip(values.reshape(-1, n), ours.reshape(-1, n), strict=True):
        expected = [np.mean([other for other in row if other <= one]) for one in row]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_mean_of_smaller_of_many():
    ours = mean_of_smaller(np.full((2, 70), 0.25, np.float32))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, 0.25)
