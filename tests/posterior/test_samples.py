"""Posteriors made of draws: their layout, what is refused, and unseen responses by the Gaussian process."""

import numpy as np
import pytest
import xarray as xr

from distpert.embeddings.vectors import Embeddings
from distpert.model.kernels import Kernel, kernel_between
from distpert.posterior.samples import SampledResponses, flatten, name_samples, one_draw
from distpert.posterior.unseen import KernelEigen


@pytest.fixture(scope="module")
def design(context_fit):
    return context_fit.numpyro_model().design


# --------------------------------------------------------------------------------------------------------------- layout


def test_layout(context_fit, sampled):
    samples, k = sampled.samples, context_fit.n_factors
    assert samples["gene"].to_numpy().tolist() == list(context_fit.genes)
    assert samples["perturbation"].to_numpy().tolist() == list(context_fit.perturbations)
    assert samples["context"].to_numpy().tolist() == ["context0", "context1"]
    assert {name: array.dims[2:] for name, array in samples.items()} == {
        "common_size": (),
        "context_size": (),
        "factor_size": ("factor",),
        "direction_size": ("direction",),
        "explained_share": ("factor",),
        "tilt_mean": ("tilt",),
        "tilt_scale": ("tilt",),
        "on_target": ("perturbation", "tilt"),
        "typical_log_concentration": (),
        "log_concentration_spread": (),
        "log_concentration": ("gene",),
        "control": ("context", "gene", "bin"),
        "common": ("context", "gene", "bin"),
        "loading": ("factor", "gene", "bin"),
        "response": ("perturbation", "factor"),
    }
    assert all(array.dims[:2] == ("chain", "draw") and array.dtype == np.float32 for array in samples.values())
    assert (samples.sizes["chain"], samples.sizes["draw"], samples.sizes["factor"]) == (3, 8, k)


def test_shifts_are_along_the_bins(raw_draws, sampled, design):
    """One draw by loop, from the coordinates of the model."""
    chain, draw, basis = 2, 5, np.asarray(design.basis, float)
    one = {name: values[chain, draw] for name, values in raw_draws.items()}
    found = sampled.samples.isel(chain=chain, draw=draw)
    for g in (0, 6, 13):
        for c, share in enumerate(np.asarray(design.perturbed_share)):
            shift = basis[g] @ one["shift"][c, g]
            control = np.asarray(design.log_pooled)[c, g] + basis[g] @ one["level"][c, g] - share * shift
            np.testing.assert_allclose(found["control"][c, g], control, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found["common"][c, g], shift, rtol=1e-4, atol=1e-4)
        for k in range(found.sizes["factor"]):
            np.testing.assert_allclose(found["loading"][k, g], basis[g] @ one["loading"][k, g], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["response"], one["response"].T.astype(np.float32))
    np.testing.assert_array_equal(found["on_target"], one["on_target"].astype(np.float32))


@pytest.mark.parametrize("site", ["common_size", "context_size", "level", "shift", "loading", "response", "on_target"])
def test_a_missing_site(context_fit, raw_draws, site):
    part = {name: values for name, values in raw_draws.items() if name != site}
    with pytest.raises(KeyError, match=rf"the samples have no site '{site}'; pass mcmc.get_samples\(group_by_chain"):
        context_fit.with_samples(part)


def test_a_site_that_is_not_needed(context_fit, raw_draws, design, sampled):
    """The shift that contexts share is not, because each context has its own."""
    part = {name: values for name, values in raw_draws.items() if name != "common"} | {"extra": np.zeros(3)}
    assert name_samples(part, context_fit.groups, design).identical(sampled.samples)


@pytest.mark.parametrize(
    ("site", "change", "dims"),
    [
        ("response", lambda x: x[..., :-1], "factor, perturbation"),
        ("response", lambda x: np.swapaxes(x, -1, -2), "factor, perturbation"),
        ("loading", lambda x: x[..., :3, :], "factor, gene, direction"),
        ("level", lambda x: x[:, :, :1], "context, gene, direction"),
        ("log_concentration", lambda x: x[:, :4], "gene"),
        ("tilt_mean", lambda x: x.reshape(-1, 2), "tilt"),
    ],
)
def test_a_site_of_another_shape(context_fit, raw_draws, site, change, dims):
    wrong = raw_draws | {site: change(raw_draws[site])}
    with pytest.raises(ValueError, match=rf"{site} has the shape \(.*\), not \(chain, draw, {dims}\): pass mcmc"):
        context_fit.with_samples(wrong)


def test_samples_without_chains(context_fit, raw_draws):
    """As ``mcmc.get_samples()`` returns them, without ``group_by_chain``."""
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in raw_draws.items()}
    with pytest.raises(ValueError, match=r"not \(chain, draw, .*group_by_chain=True"):
        context_fit.with_samples(flat)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite(context_fit, raw_draws, bad):
    shift = raw_draws["shift"].copy()
    shift[1, 3, 0, 2, 1] = bad
    with pytest.raises(ValueError, match="shift is not finite in some draws"):
        context_fit.with_samples(raw_draws | {"shift": shift})


def test_one_draw_is_the_last_of_the_first_chain(sampled, design):
    one, last = one_draw(sampled.samples, design), sampled.samples.isel(chain=0, draw=-1)
    for name in ("control", "common", "loading", "response", "explained_share", "log_concentration", "tilt_scale"):
        np.testing.assert_array_equal(one[name], last[name])
    scales = {name for name in one if str(name).endswith("_scale")} - {"tilt_scale"}
    assert scales == {f"{name}_scale" for name in ("level", "common", "loading", "response", "on_target")} | {
        "log_concentration_scale"
    }
    assert all((one[name] == 0).all() for name in scales)
    assert "chain" not in one.coords and "draw" not in one.coords


def test_one_draw_has_the_layout_of_fitted_parameters(context_fit, sampled):
    theirs = {name: (array.dims, array.shape, array.dtype) for name, array in context_fit.parameters.items()}
    assert {name: (array.dims, array.shape, array.dtype) for name, array in sampled.parameters.items()} == theirs


# ------------------------------------------------------------------------------------------------ which draws are taken


@pytest.fixture(scope="module")
def numbered():
    """Draws that are 100 times the chain plus the number of the draw."""
    values = 100 * np.arange(3)[:, None] + np.arange(9)
    return xr.Dataset(
        {"x": (("chain", "draw"), values), "y": (("chain", "draw", "z"), np.repeat(values[..., None], 2, 2))}
    )


@pytest.mark.parametrize(
    ("num_draws", "expected"),
    [(3, [0]), (6, [0, 8]), (9, [0, 4, 8]), (15, [0, 2, 4, 6, 8]), (27, list(range(9)))],
)
def test_draws_are_taken_evenly_from_each_chain(numbered, num_draws, expected):
    taken = flatten(numbered, num_draws)
    assert taken["x"].dims == ("sample",)
    assert taken["y"].dims == ("sample", "z")
    assert taken["x"].to_numpy().tolist() == [100 * chain + draw for chain in range(3) for draw in expected]
    np.testing.assert_array_equal(taken["y"][:, 1], taken["x"])


@pytest.mark.parametrize("num_draws", [1, 7, 28, 30])
def test_other_numbers_of_draws(numbered, num_draws):
    with pytest.raises(ValueError, match=f"a multiple of the 3 chains and at most 27, not {num_draws}$"):
        flatten(numbered, num_draws)


def test_other_numbers_of_draws_in_a_prediction(sampled):
    with pytest.raises(ValueError, match="num_draws must be a multiple of the 3 chains and at most 24, not 200"):
        sampled.predict("GENE1")


# ------------------------------------------------------------------------------------------------------------ responses

LABELS = ("A", "B", "A+C", "NEW")  # the last one has no embedding


@pytest.fixture(scope="module")
def still():
    """The same values in all of 2 × 4000 draws, so that what is drawn of unseen ones can be told apart."""
    rng = np.random.default_rng(0)
    embeddings = Embeddings(tuple("ABCDE"), rng.normal(size=(5, 2)).astype(np.float32), (2,))
    kernel = Kernel((0.7,), (1.5,), 2.0, 0.3)
    matrix = kernel_between(LABELS, LABELS, embeddings, kernel)
    np.fill_diagonal(matrix, 1)
    one = xr.Dataset(
        {
            "response": (("perturbation", "factor"), rng.normal(size=(4, 2)).astype(np.float32)),
            "on_target": (("perturbation", "tilt"), rng.normal(size=(4, 2)).astype(np.float32)),
            "explained_share": ("factor", np.array([0.4, 0.9], np.float32)),
            "tilt_mean": ("tilt", np.array([-1.0, 0.5], np.float32)),
            "tilt_scale": ("tilt", np.array([0.3, 1.2], np.float32)),
        }
    )
    samples = one.expand_dims(chain=2, draw=4000)
    return SampledResponses(LABELS, samples, embeddings, kernel, KernelEigen(*np.linalg.eigh(matrix))), one, matrix


def test_unseen_responses_follow_the_conditional_normal(still):
    """Against the joint normal of all responses, conditioned on those in training."""
    responses, one, matrix = still
    n = 8000
    drawn = responses.draw(["D", "B+E"], n, 0)
    for i, label in enumerate(["D", "B+E"]):
        cross = kernel_between([label], LABELS, responses.embeddings, responses.kernel)[0]
        for k, rho in enumerate(one["explained_share"].to_numpy().astype(float)):
            weights = rho * cross @ np.linalg.inv(rho * matrix + (1 - rho) * np.eye(4))
            mean, sd = weights @ one["response"].to_numpy()[:, k], np.sqrt(1 - weights @ (rho * cross))
            values = drawn.response[:, i, k].astype(float)
            assert abs(values.mean() - mean) < 4.5 * sd / np.sqrt(n)
            assert values.std() == pytest.approx(sd, rel=4.5 / np.sqrt(2 * n))
        tilt = drawn.on_target[:, i].astype(float)
        assert (abs(tilt.mean(axis=0) - [-1.0, 0.5]) < 4.5 * np.array([0.3, 1.2]) / np.sqrt(n)).all()
        np.testing.assert_allclose(tilt.std(axis=0), [0.3, 1.2], rtol=4.5 / np.sqrt(2 * n))
    everything = np.concatenate([*drawn.response.transpose(1, 0, 2), *drawn.on_target.transpose(1, 0, 2)], axis=1)
    off = np.corrcoef(everything, rowvar=False) - np.eye(8)
    assert (abs(off) < 4.5 / np.sqrt(n)).all()


def test_unseen_responses_go_with_the_draw(still):
    """The mean follows the training responses of the same draw."""
    responses, one, matrix = still
    moved = responses.samples.copy(deep=True)
    moved["response"] = moved["response"] * xr.DataArray(np.resize([1.0, -5.0], 4000).astype(np.float32), dims="draw")
    other = SampledResponses(LABELS, moved, responses.embeddings, responses.kernel, responses.eigen)
    plain, drawn = (each.draw(["D"], 8000, 0).response[:, 0].astype(float) for each in (responses, other))
    cross = kernel_between(["D"], LABELS, responses.embeddings, responses.kernel)[0]
    share = one["explained_share"].to_numpy().astype(float)
    weights = [rho * cross @ np.linalg.inv(rho * matrix + (1 - rho) * np.eye(4)) for rho in share]
    mean = np.einsum("kp,pk->k", weights, one["response"].to_numpy())
    np.testing.assert_allclose(drawn[::2], plain[::2], atol=1e-5)
    np.testing.assert_allclose(drawn[1::2], plain[1::2] - 6 * mean, atol=1e-4)


def test_training_perturbations_have_their_draws(sampled):
    drawn = sampled.draw_responses(["GENE3", "GENE11", "GENE0"], 6, 1)
    taken = sampled.samples.isel(draw=[0, 7])
    for i, label in ((0, "GENE3"), (2, "GENE0")):
        for name, values in (("response", drawn.response), ("on_target", drawn.on_target)):
            expected = taken[name].sel(perturbation=label).to_numpy().reshape(6, -1)
            np.testing.assert_array_equal(values[:, i], expected)
    assert not drawn.inactive.any()


def test_draws_do_not_depend_on_the_company(sampled):
    together, alone = (sampled.draw_responses(labels, 6, 1) for labels in (["GENE11", "GENE10", "GENE2"], ["GENE10"]))
    np.testing.assert_array_equal(together.response[:, 1], alone.response[:, 0])
    np.testing.assert_array_equal(together.on_target[:, 1], alone.on_target[:, 0])
    other = sampled.draw_responses(["GENE10"], 6, 2)
    assert (other.response != alone.response).any()


def test_what_a_fit_of_draws_tells(context_fit, sampled):
    assert sampled.n_chains == 3
    assert context_fit.n_chains == 1
    assert (sampled.prob_inactive == 0).all()
    samples = sampled.samples
    mean = sampled.mean_response(6)
    expected = samples["response"].isel(draw=[0, 7]).mean("perturbation").to_numpy().reshape(6, -1)
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    typical = np.exp(samples["typical_log_concentration"].to_numpy().ravel().astype(float))
    np.testing.assert_allclose(sampled.concentration_interval(0.5), np.quantile(typical, [0.25, 0.5, 0.75]), rtol=1e-5)
    loading, share = samples["loading"].to_numpy().astype(float), samples["explained_share"].to_numpy()
    size = (loading**2).sum(axis=(-1, -2))
    shares = ((size * share).sum(axis=-1) / size.sum(axis=-1)).ravel()
    np.testing.assert_allclose(sampled.explained_share_interval(0.8), np.quantile(shares, [0.1, 0.5, 0.9]), rtol=1e-4)
