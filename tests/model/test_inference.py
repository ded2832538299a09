"""The optimization: reproducible, unbiased, stopped by its rule, compiled once."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist

from distpert.model import inference
from distpert.model.basis import coordinates, shift_basis
from distpert.model.design import on_target_tilts, target_indices
from distpert.model.generative import SITES, Batch, Design
from distpert.model.inference import Schedule, SviResult, has_converged, n_epochs, optimize
from distpert.model.optimization import Optimization
from distpert.model.priors import Priors
from distpert.model.warm_start import factorize

N_GROUPS, N_GENES, N_BINS, N_FACTORS = 12, 5, 4, 2
SHORT = Optimization(max_epochs=20, min_steps=1, batch_size=4, patience=20)
SCHEDULE = Schedule(N_GROUPS, n_chunks=1, n_batches=3, batch_size=4, n_epochs=20)


def small_screen(n_groups=N_GROUPS, seed=0):
    """Design, groups and start of a screen with strong shifts and one context."""
    rng = np.random.default_rng(seed)
    control = rng.dirichlet(np.full(N_BINS, 5.0), size=(1, N_GENES))
    shift = np.tensordot(rng.normal(size=(n_groups, N_FACTORS)), rng.normal(size=(N_FACTORS, N_GENES, N_BINS)), axes=1)
    probs = control * np.exp(0.7 * shift)
    probs /= probs.sum(axis=-1, keepdims=True)
    n_cells = rng.integers(50, 150, n_groups)
    counts = np.stack([rng.multinomial(n, p) for n, p in zip(n_cells, probs, strict=True)])
    points = rng.normal(size=(n_groups, 2))
    eigenvalues, eigenvectors = np.linalg.eigh(np.exp(-np.linalg.norm(points[:, None] - points, axis=-1)))
    genes = [f"G{g}" for g in range(N_GENES)]
    basis = shift_basis(control[0], 0.8)
    design = Design(
        log_pooled=np.log(control).astype(np.float32),
        basis=basis.astype(np.float32),
        perturbed_share=np.array([0.8], np.float32),
        control_counts=rng.multinomial(300, control).astype(np.float32),
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=on_target_tilts(control).astype(np.float32),
        targets=target_indices([f"G{i}" for i in range(n_groups)], genes),
    )
    context = np.zeros(n_groups, int)
    groups = Batch(counts.astype(np.float32), n_cells.astype(np.int32), np.arange(n_groups), context)
    factors = factorize(counts, n_cells, np.arange(n_groups), context, control, N_FACTORS)
    shifts = {
        "level": np.zeros((1, N_GENES, N_BINS - 1)),
        "shift": coordinates(factors.common, basis),
        "loading": 0.1 * coordinates(factors.loading, basis),
    }
    start = {
        **shifts,
        **{f"{name}_scale": np.full_like(value, 0.05) for name, value in shifts.items()},
        "common_size": np.array(0.2),
        "factor_size": np.full(N_FACTORS, 0.3),
        "direction_size": np.ones(N_BINS - 1),
        "explained_share": np.full(N_FACTORS, 0.5),
        "response": factors.response.T,
        "response_scale": np.full((N_FACTORS, n_groups), 0.1),
        "tilt_mean": np.zeros(2),
        "tilt_scale": np.ones(2),
        "on_target": np.zeros((n_groups, 2)),
        "on_target_scale": np.full((n_groups, 2), 0.1),
        "typical_log_concentration": np.array(6.0),
        "log_concentration_spread": np.array(0.5),
        "log_concentration": np.full(N_GENES, 6.0),
        "log_concentration_scale": np.full(N_GENES, 0.1),
    }
    return design, groups, start


def run(design, groups, start, settings=SHORT, seed=0) -> SviResult:
    return optimize(
        design, groups, start, n_factors=N_FACTORS, priors=Priors(), settings=settings, seed=seed, progress_bar=False
    )


@pytest.fixture(scope="module")
def screen():
    return small_screen()


@pytest.fixture(scope="module")
def result(screen):
    return run(*screen)


def test_parameters_are_the_guides(screen, result):
    one_context = [name for name in SITES if name not in ("common", "context_size")]
    normals = {f"{name}_{part}" for name in one_context if SITES[name] is None for part in ("mean", "scale")}
    points = {f"{name}_value" for name in one_context if SITES[name] is not None}
    assert result.parameters.keys() == points | normals
    for name, value in result.parameters.items():
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float32
        assert value.shape == screen[2][name.rpartition("_")[0]].shape
        assert np.isfinite(value).all()
    for name in [*normals, "tilt_scale_value", "factor_size_value", "common_size_value"]:
        assert (result.parameters[name] > 0).all() or name.endswith("_mean")
    share = result.parameters["explained_share_value"]
    assert ((share > 0) & (share < 1)).all()


def test_the_same_seed_gives_the_same_bits(screen, result):
    again, other = run(*screen), run(*screen, seed=1)
    np.testing.assert_array_equal(again.loss, result.loss)
    for name, value in result.parameters.items():
        assert again.parameters[name].tobytes() == value.tobytes()
    assert any((other.parameters[name] != value).any() for name, value in result.parameters.items())


def test_nothing_is_compiled_twice(screen, result):
    compiled = inference._compile(SCHEDULE, N_FACTORS, Priors(), SHORT)
    run(*screen, seed=2)
    run(*small_screen(seed=5))  # another screen of the same size
    assert inference._compile(SCHEDULE, N_FACTORS, Priors(), SHORT) is compiled
    assert compiled.init._cache_size() == 1
    assert compiled.steps._cache_size() == 1


def test_loss_falls(result):
    assert result.loss.dtype == np.float64
    assert result.loss[-1] < result.loss[0]
    assert result.loss[-5:].mean() < result.loss[:5].mean() - 0.005
    # In nats per cell and gene: about the entropy of a histogram of four bins, at most log 4.
    assert 0.5 < result.loss[-1] < np.log(4) + 0.5


def short_story(monkeypatch, watch):
    """Put one normal variable in place of model and guide, quick to compile, and watch the batches."""

    def model(design, batch, **options):
        jax.debug.callback(watch, batch.perturbation, batch.weight, ordered=True)
        numpyro.sample("x", dist.Normal())

    def guide(start):
        numpyro.sample("x", dist.Normal(numpyro.param("mean", 3.0), 1.0))

    monkeypatch.setattr(inference, "model", model)
    monkeypatch.setattr(inference, "guide", guide)
    monkeypatch.setattr(inference, "_compile", inference._compile.__wrapped__)


def test_minibatches_are_unbiased(screen):
    """At given parameters and latent values, the losses of disjoint minibatches average to that of all groups."""
    design, groups, start = screen
    compiled = inference._compile(SCHEDULE, N_FACTORS, Priors(), SHORT)
    initial = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = compiled.init(jax.random.key(0), design, groups, initial)
    evaluate = jax.jit(compiled.svi.evaluate)
    whole = evaluate(state, design, groups, initial)
    order = np.random.default_rng(0).permutation(N_GROUPS).reshape(3, 4)
    parts = [evaluate(state, design, Batch(*(x[chosen] for x in groups[:4])), initial) for chosen in order]
    assert np.std(parts) > 1e-3 * abs(whole)  # the parts differ, as they should for this to say anything
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)


@pytest.mark.parametrize(("n_groups", "batch_size", "expected"), [(12, 4, 4), (11, 4, 4), (10, 9, 5), (7, 64, 7)])
def test_batches_are_even_and_cover_all_groups(monkeypatch, n_groups, batch_size, expected):
    seen, weights = [], []

    def watch(perturbation, weight):
        seen.append(perturbation[weight > 0])
        weights.append(weight)

    short_story(monkeypatch, watch)
    run(*small_screen(n_groups), settings=Optimization(max_epochs=2, min_steps=1, batch_size=batch_size))
    jax.effects_barrier()
    n_batches = -(-n_groups // batch_size)
    steps, weights = seen[-2 * n_batches :], weights[-2 * n_batches :]  # before them, the initialization
    assert all(len(weight) == expected for weight in weights)
    assert sum(map(len, steps)) == 2 * n_groups
    assert min(map(len, steps)) > expected - n_batches
    # An epoch's losses average to the loss of all groups, each counted once.
    assert np.concatenate(weights).sum() / 2 == pytest.approx(expected * n_batches)
    epochs = [np.concatenate(steps[:n_batches]), np.concatenate(steps[n_batches:])]
    for epoch in epochs:
        assert sorted(epoch) == list(range(n_groups))
    assert n_groups == expected or (epochs[0] != epochs[1]).any()  # in a new order


def test_chunks_change_nothing_but_memory(screen, result, monkeypatch):
    """Counts on the device a few minibatches at a time: the same steps, up to the rounding of other programs."""
    design, groups, start = screen
    monkeypatch.setattr(inference, "CHUNK_BYTES", groups.counts.nbytes // 3)
    schedule = Schedule.of(groups.counts, SHORT)
    assert schedule[:4] == (N_GROUPS, 3, 1, 4)
    one, three = (list(s.chunks(groups, jax.random.key(1))) for s in (SCHEDULE, schedule))
    assert [len(three), len(one)] == [3, 1]
    for field, whole in zip(Batch._fields, one[0], strict=True):
        np.testing.assert_array_equal(np.concatenate([getattr(chunk, field) for chunk in three]), whole)
    found = run(design, groups, start)
    np.testing.assert_allclose(found.loss, result.loss, rtol=1e-4)


TWO_DEVICES = """
import sys, numpy as np, jax
sys.path.insert(0, sys.argv[1])
import test_inference as here
assert len(jax.devices()) == 2
result = here.run(*here.small_screen())
np.savez(sys.argv[2], loss=result.loss, loading=result.parameters["loading_mean"])
"""


def test_two_devices_give_the_result_of_one(result, tmp_path):
    """Groups are spread over devices; only sums are in another order."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO_DEVICES, str(Path(__file__).parent), str(tmp_path / "two.npz")]
    subprocess.run(command, check=True, env=environment)
    found = np.load(tmp_path / "two.npz")
    np.testing.assert_allclose(found["loss"], result.loss, rtol=1e-4)
    np.testing.assert_allclose(found["loading"], result.parameters["loading_mean"], atol=0.02)


def test_batches_are_even_over_devices():
    counts = np.zeros((10, 2, 3), np.uint8)
    assert Schedule.of(counts, Optimization(batch_size=4), n_devices=2)[:4] == (10, 1, 3, 4)
    assert Schedule.of(counts, Optimization(batch_size=64), n_devices=4)[:4] == (10, 1, 1, 12)


def test_integer_counts_are_those_in_single_precision(screen, result):
    design, groups, start = screen
    found = run(design, groups._replace(counts=groups.counts.astype(np.uint8)), start)
    np.testing.assert_array_equal(found.loss, result.loss)


@pytest.mark.parametrize(
    ("n_groups", "settings", "expected"),
    [
        (64, {}, 120),  # one minibatch an epoch
        (65, {}, 60),
        (256, {}, 30),
        (1000, {}, 25),
        (1000, {"max_epochs": 3}, 8),
        (1000, {"max_epochs": 3, "min_steps": 1}, 3),
        (1000, {"max_steps": 70, "min_epochs": 5}, 8),
        (1000, {"max_steps": 161, "min_epochs": 5}, 11),
        (1000, {"max_steps": 161, "min_epochs": 15}, 15),
        (1, {"max_epochs": 1, "min_steps": 1, "batch_size": 1}, 1),
    ],
)
def test_n_epochs(n_groups, settings, expected):
    defaults = {"max_epochs": 25, "min_steps": 120, "batch_size": 64}
    assert n_epochs(n_groups, Optimization(**(defaults | settings))) == expected


@pytest.mark.slow
def test_means_are_returned_without_their_units(screen):
    design, groups, start = screen
    hardly = Optimization(max_epochs=1, min_steps=1, step_size=1e-9)
    units = {f"{name}_unit": np.full_like(start[name], 3.0) for name in ("level", "shift", "loading")}
    found = run(design, groups, start | units, settings=hardly).parameters
    for name in ("level", "shift", "loading"):
        np.testing.assert_allclose(found[f"{name}_mean"], start[name], atol=1e-6)
    # With contexts there are two sites more.
    twice = {name: np.repeat(getattr(design, name), 2, axis=0) for name in ("log_pooled", "tilts", "control_counts")}
    design = design._replace(**twice, perturbed_share=np.array([0.8, 0.5], np.float32))
    more = {name: np.repeat(start[name], 2, axis=0) for name in start if name.startswith(("level", "shift"))}
    common = np.random.default_rng(0).normal(size=(N_GENES, N_BINS - 1))
    more |= {"common": common, "common_scale": np.full_like(common, 0.1), "common_unit": np.full_like(common, 2.0)}
    more["context_size"] = np.array(0.3)
    groups = groups._replace(context=np.arange(N_GROUPS) % 2)
    found = run(design, groups, start | more, settings=hardly).parameters
    np.testing.assert_allclose(found["common_mean"], common, atol=1e-6)
    np.testing.assert_allclose(found["context_size_value"], 0.3, atol=1e-6)


@pytest.mark.slow
def test_a_mean_moves_in_its_units(screen):
    design, groups, start = screen
    one_step = Optimization(max_epochs=1, min_steps=1, batch_size=N_GROUPS)
    moved = [
        run(design, groups, start | {"shift_unit": np.full_like(start["shift"], unit)}, settings=one_step).parameters[
            "shift_mean"
        ]
        - start["shift"]
        for unit in (1.0, 3.0)
    ]
    # The first step of Adam is the step size in each parameter, whatever the gradient.
    np.testing.assert_allclose(np.abs(moved[0]), one_step.step_size, rtol=1e-3)
    np.testing.assert_allclose(moved[1], 3 * moved[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([10, 5, 4, 4], False),  # too short for a patience of 2 to tell
        ([10, 5, 4, 4, 4, 4], True),
        ([10, 9, 8, 7, 6, 5], False),
        ([10, 2, 1, 0.99, 0.98, 0.97], True),  # 0.02 of 9.03
        ([10, 2, 1.2, 1.2, 1.1, 1.0], False),  # 0.2 of 9
        ([10, 5, 4, 3.0, 9.0, 9.0], True),  # the best so far stands for the current
        ([10, 5, 9, 9, 4, 9], False),  # found within the last two
        ([3, 3, 3, 3, 3, 3], True),  # nothing to gain
        ([3, 4, 5, 6, 7, 8], True),
    ],
)
def test_has_converged(losses, expected):
    assert has_converged(losses, Optimization(patience=2, tolerance=0.01)) is expected


def test_a_run_ends_by_its_rule_or_at_its_last_epoch(monkeypatch, screen, result):
    assert len(result.loss) == SHORT.max_epochs
    assert not result.converged
    short_story(monkeypatch, lambda perturbation, weight: None)
    early = run(*screen, settings=Optimization(max_epochs=9, min_steps=1, batch_size=4, tolerance=2.0, patience=1))
    assert len(early.loss) == 3
    assert early.converged


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error(screen, bad):
    design, groups, start = screen
    broken = start | {"shift": np.full_like(start["shift"], bad)}
    with pytest.raises(FloatingPointError, match=r"in epoch 1\. Pass .*Optimization\(step_size=\.\.\.\) .* below 0.04"):
        run(design, groups, broken)


def test_progress_bar(screen, capsys):
    arguments = {"n_factors": N_FACTORS, "priors": Priors(), "settings": SHORT, "seed": 0}
    optimize(*screen, **arguments, progress_bar=False)
    assert capsys.readouterr().err == ""
    optimize(*screen, **arguments, progress_bar=True)
    assert "20/20" in capsys.readouterr().err


def equations_of(jaxpr):
    """Every equation of a program, those in loops and functions it calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations_of(inner)


@pytest.fixture(scope="module")
def epoch_equations():
    """Of what is compiled for an epoch, gradients included."""
    design, groups, start = small_screen()
    compiled = inference._compile(SCHEDULE, N_FACTORS, Priors(), SHORT)
    initial = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    state = compiled.init(jax.random.key(0), design, groups, initial)
    (chunk,) = SCHEDULE.chunks(groups, jax.random.key(1))
    program = jax.make_jaxpr(compiled.steps)(state, design, chunk, initial)
    return list(equations_of(program.jaxpr))


def test_products_are_in_full_precision(epoch_equations):
    # Recent GPUs would take TensorFloat-32, and predictions then differ from those of a CPU.
    found = [equation.params["precision"] for equation in epoch_equations if equation.primitive.name == "dot_general"]
    assert len(found) >= 6  # forwards and backwards
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_sums_have_one_order(epoch_equations):
    # GPUs add what is scattered to the same place in any order. The one that is left adds tilts to the logits of each
    # group's own targets, no two of which are the same.
    scattered = [equation for equation in epoch_equations if equation.primitive.name == "scatter-add"]
    assert [equation.outvars[0].aval.ndim for equation in scattered] == [3]
