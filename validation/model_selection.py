"""What decided the defaults: one change at a time, on perturbations left out.

    python validation/model_selection.py --data k562.h5ad --embeddings embeddings.npz --out selection --folds 0 3 6

Each row is a variant of distpert that differs from the default in one thing. The folder gets selection.csv (means of
scores), differences.csv (paired differences from the default with 95 % intervals), and in folds/ what is done, so that
the same call goes on where it was interrupted.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from report import HALVES, differences, mean_scores, without_artefacts
from screens import AUTO, open_screen

import distpert
from distpert import fitted, fitting, inference, kernels, responses, strengths, unseen
from distpert import model as model_module
from distpert.cross_validation.protocol import Distpert
from distpert.cross_validation.models import DistpertFit
from distpert.model.design import on_target_tilts
from distpert.predictions.draws import Block
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.model.optimization import Optimization
from distpert.model.kernels import Kernel
from distpert.model.priors import Priors
from distpert.predictions.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The model with something else in place of what is no setting of it, while it fits and predicts.

    ``length_factor`` multiplies the length scale that the marginal likelihood chooses; ``powers`` are the kernel's that
    it may choose from; ``linear`` adds a linear kernel of that share, a linear mean function; ``basis`` leaves shifts
    only so many directions along the bins of a gene; ``penetrance`` is the share of cells that respond; without
    ``tilts`` perturbed genes are as other genes; ``temper`` is how much of their length is divided out of responses;
    without ``slope`` it is one; without ``strengths`` the responses of unseen perturbations are normal; with
    ``strengths`` of ``"any"`` they do not follow the embedding; ``told_power`` is the power of their ratio to those
    expected where it multiplies what the others tell of one; ``smoothing`` is how much of a residual is normal;
    without ``null`` responses are scaled about their mean, rather than about the one that shifts nothing; without
    ``shared`` labels have no more in common for sharing genes; without ``by_number`` pairs are expected to be as strong
    as single genes are; without ``strides`` rare bins are optimized in steps as long as those of others.
    """

    num_draws: int
    length_factor: float = 1.0
    powers: tuple[float, ...] = kernels.POWERS
    linear: float = 0.0
    basis: int | None = None
    penetrance: float = 1.0
    tilts: bool = True
    temper: float = strengths.TEMPER
    told_power: float = strengths.TOLD_POWER  # before the field that takes the module's name
    slope: bool = True
    strengths: bool | str = True
    smoothing: float = unseen.SMOOTHING
    null: bool = True
    shared: bool = True
    by_number: bool = True
    strides: bool = True

    def fit(self, histograms: Histograms, embeddings: Embeddings, *, seed: int = 0) -> "ChangedFit":
        with self.made():
            result = Distpert(num_draws=self.num_draws).fit(histograms, embeddings, seed=seed)
        return ChangedFit(result, self)

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the changes, and take them back."""
        with ExitStack() as changes:

            def change(module: object, name: str, value: object) -> None:
                changes.enter_context(patch.object(module, name, value))

            change(kernels, "POWERS", self.powers)
            change(strengths, "TEMPER", self.temper)
            if self.length_factor != 1:
                change(fitting, "choose_kernel", scaled(fitting.choose_kernel, self.length_factor))
            if self.linear:
                between = with_linear(kernels.kernel_between, self.linear)
                for module in (kernels, responses):
                    change(module, "kernel_between", between)
            if self.basis or self.penetrance < 1:
                inference._compile.cache_clear()  # what is compiled holds the story as it was
                changes.callback(inference._compile.cache_clear)
                story = model_module.shifted_logits
                story = on_a_basis(story, self.basis) if self.basis else story
                story = in_a_share(story, self.penetrance) if self.penetrance < 1 else story
                change(model_module, "shifted_logits", story)
            if not self.tilts:
                for module in (fitting, fitted):
                    change(module, "on_target_tilts", no_tilts(on_target_tilts))
            if not self.slope:
                change(unseen, "left_out_slope", lambda *_: 1.0)
            if not self.strengths:
                change(unseen, "left_out_strengths", lambda response, *_: np.ones(len(response)))
            if self.strengths == "any":
                change(unseen, "expected_strengths", typical)
            change(strengths, "TOLD_POWER", self.told_power)
            change(unseen, "SMOOTHING", self.smoothing)
            if not self.shared:
                change(kernels, "SHARED", kernels.SHARED[:1])
            if not self.by_number:
                change(strengths, "SHRINK_LABELS", 1e9)
            if not self.strides:
                change(fitting, "bin_strides", lambda counts: np.ones(counts.shape[1:]))
            if not self.null:
                change(fitted, "null_response", lambda common, loading, *_: np.zeros(len(loading)))
            yield


@dataclass(frozen=True, eq=False)
class ChangedFit:
    """A fit that predicts under the changes that it was made with."""

    result: DistpertFit
    changed: Changed

    def predict(
        self, perturbations: str | Sequence[str], *, context: str | Sequence[str] | None = None, seed: int = 0
    ) -> Prediction:
        result, changed = self.result, self.changed
        with changed.made():
            result.fitted.tilts  # noqa: B018 - cached here, as histograms are made after the changes are taken back
            prediction = result.predict(perturbations, context=context, seed=seed)
        if changed.basis:
            fit = prediction.fit
            loading = projected(fit.parameters["loading"].to_numpy(), fit.log_control, changed.basis)
            parameters = fit.parameters.assign(loading=(fit.parameters["loading"].dims, np.asarray(loading)))
            prediction = replace(prediction, fit=replace(fit, parameters=parameters))
        if changed.penetrance < 1:
            of = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
            prediction = PartlyResponding(**of, penetrance=changed.penetrance)
        return prediction


@dataclass(frozen=True, eq=False, repr=False)
class PartlyResponding(Prediction):
    """A prediction of which only a share of the cells responds."""

    penetrance: float = field(default=1.0, kw_only=True)

    def _probs(self, block: Block) -> np.ndarray:
        context = self.fit.contexts.index(self.contexts[block.context])
        control = np.exp(self.fit.log_control[context, block.genes])
        return (1 - self.penetrance) * control + self.penetrance * super()._probs(block)


def on_a_basis(shifted_logits: Callable, n_directions: int) -> Callable:
    """Project the loadings of each gene."""

    def shifted(design, perturbation, context, common, loading, response, on_target):
        loading = projected(loading, design.log_control, n_directions)
        return shifted_logits(design, perturbation, context, common, loading, response, on_target)

    return shifted


def projected(loading: np.ndarray, log_control: np.ndarray, n_directions: int) -> jax.Array:
    """Loadings (factor, gene, bin) as polynomials in the ranks of bins among the control cells, by least squares."""
    histogram = jnp.exp(jnp.asarray(log_control)).mean(axis=0)
    rank = 2 * histogram.cumsum(axis=-1) - histogram - 1
    powers = rank[..., None] ** jnp.arange(n_directions + 1)
    weighted = powers * histogram[..., None]
    gram = jnp.einsum("gbj,gbk->gjk", powers, weighted) + 1e-5 * jnp.eye(n_directions + 1)
    coefficients = jnp.linalg.solve(gram[None], jnp.einsum("gbj,kgb->kgj", weighted, loading)[..., None])
    return jnp.einsum("gbj,kgj->kgb", powers, coefficients[..., 0])


def in_a_share(shifted_logits: Callable, penetrance: float) -> Callable:
    """Mix with the control histogram."""

    def shifted(design, perturbation, context, *parameters):
        logits = shifted_logits(design, perturbation, context, *parameters)
        responding = jax.nn.log_softmax(logits) + np.log(penetrance)
        return jnp.logaddexp(responding, jnp.asarray(design.log_control)[context] + np.log1p(-penetrance))

    return shifted


def with_linear(kernel_between: Callable, share: float) -> Callable:
    """Give a share of the kernel to the cosine of embeddings."""

    def between(left, right, embeddings, kernel):
        rough = kernel_between(left, right, embeddings, kernel)
        return (1 - share) * rough + share * kernel_between(left, right, embeddings, Cosine(1.0))

    return between


class Cosine(Kernel):
    """A linear kernel on embeddings of length one."""

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (left, right))
        return left @ right.T


def typical(values: np.ndarray, eigenvalues: np.ndarray, eigenvectors: np.ndarray, cross: np.ndarray, *_) -> tuple:
    """Expect of each the geometric mean."""
    mean = np.exp(np.log(values).mean())
    return np.full(len(values), mean), np.full(len(cross), mean)


def scaled(choose_kernel: Callable, factor: float) -> Callable:
    """Choose as ever, then multiply the length scale."""

    def choose(embeddings: Embeddings, perturbations: Sequence[str], response: np.ndarray) -> tuple[Kernel, ...]:
        best = choose_kernel(embeddings, perturbations, response)[0]
        with patch.object(kernels, "LENGTH_SCALES", (1.0,)):
            unit = choose_kernel(embeddings, perturbations, response)[0].length_scale
        scale = factor * best.length_scale / unit
        with patch.multiple(kernels, LENGTH_SCALES=(scale,), POWERS=(best.power,)):
            return choose_kernel(embeddings, perturbations, response)

    return choose


def no_tilts(on_target_tilts: Callable) -> Callable:
    """Make directions of no shift at all."""
    return lambda control: np.zeros_like(on_target_tilts(control))


def variants(num_draws: int) -> list[tuple[str, Distpert | Changed]]:
    """Models by name, the default first."""

    def model(**settings) -> Distpert:
        return Distpert(num_draws=num_draws, **settings)

    return [
        ("default", model()),
        ("factors=8", model(n_factors=8)),
        ("factors=32", model(n_factors=32)),
        ("epochs=25", model(optimization=Optimization(max_epochs=25, min_steps=1))),
        ("epochs=200-no-stopping-rule", model(optimization=Optimization(max_epochs=200, patience=200))),
        ("step-size=0.02", model(optimization=Optimization(step_size=0.02))),
        ("step-size=0.08", model(optimization=Optimization(step_size=0.08))),
        ("smoother-loadings", model(priors=Priors(loading=0.03))),
        ("rougher-loadings", model(priors=Priors(loading=0.3))),
        ("steps-of-loadings-independent", model(priors=Priors(loading_smoothness=0.0))),
        ("all-bins-in-one-stride", Changed(num_draws=num_draws, strides=False)),
        ("smoother-common-shift", model(priors=Priors(common=0.2))),
        ("lower-concentration", model(priors=Priors(log_concentration=(6.0, 1.5)))),
        ("half-the-length-scale", Changed(num_draws=num_draws, length_factor=0.5)),
        ("twice-the-length-scale", Changed(num_draws=num_draws, length_factor=2.0)),
        ("rough-kernel-alone", Changed(num_draws=num_draws, powers=(1.0,))),
        ("smooth-kernel-alone", Changed(num_draws=num_draws, powers=(2.0,))),
        ("no-on-target-tilt", Changed(num_draws=num_draws, tilts=False)),
        ("linear-kernel-added", Changed(num_draws=num_draws, linear=0.3)),
        ("2-directions-along-bins", Changed(num_draws=num_draws, basis=2)),
        ("4-directions-along-bins", Changed(num_draws=num_draws, basis=4)),
        ("0.7-of-cells-respond", Changed(num_draws=num_draws, penetrance=0.7)),
        ("shared-genes-do-not-count", Changed(num_draws=num_draws, shared=False)),
        ("pairs-as-strong-as-single-genes", Changed(num_draws=num_draws, by_number=False)),
        ("untempered", Changed(num_draws=num_draws, temper=0.0)),
        ("tempered-to-directions", Changed(num_draws=num_draws, temper=1.0)),
        ("slope=1", Changed(num_draws=num_draws, slope=False)),
        ("strengths-without-embedding", Changed(num_draws=num_draws, strengths="any")),
        ("no-strengths", Changed(num_draws=num_draws, strengths=False)),
        ("strengths-in-full-in-what-is-told", Changed(num_draws=num_draws, told_power=1.0)),
        ("strengths-not-in-what-is-told", Changed(num_draws=num_draws, told_power=0.0)),
        ("normal-residuals", Changed(num_draws=num_draws, smoothing=1.0)),
        ("residuals-not-smoothed", Changed(num_draws=num_draws, smoothing=0.0)),
        ("scaled-about-the-mean", Changed(num_draws=num_draws, null=False)),
        ("normal-responses", Changed(num_draws=num_draws, temper=0.0, slope=False, strengths=False, smoothing=1.0)),
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name, _ in variants(1)]
    parser.add_argument("--data", required=True, help="an h5ad that screens.py recognizes")
    parser.add_argument("--embeddings", required=True, help="a file that distpert.read_embeddings reads")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--variants", nargs="+", default=names[1:], choices=names[1:], metavar="VARIANT",
                        help=f"beside the default: of {names[1:]}")  # fmt: skip
    parser.add_argument("--dataset", default=None, help="where the file holds several: which of obs['dataset']")
    parser.add_argument("--context-key", default=AUTO, type=lambda name: None if name == "none" else name,
                        help="column of obs; by default a usual one, with none no contexts")  # fmt: skip
    parser.add_argument("--n-genes", type=int, default=None, help="of largest variance, and the perturbed ones")
    parser.add_argument("--n-folds", type=int, default=9)
    parser.add_argument("--folds", type=int, nargs="+", default=None, help="which folds; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args(argv)

    adata, keys = open_screen(
        arguments.data, dataset=arguments.dataset, context_key=arguments.context_key, n_genes=arguments.n_genes
    )
    chosen = {"default", *arguments.variants}
    scores = distpert.cross_validate(
        adata,
        distpert.read_embeddings(arguments.embeddings),
        models=[(name, model) for name, model in variants(arguments.draws) if name in chosen],
        n_folds=arguments.n_folds,
        folds=arguments.folds,
        seed=arguments.seed,
        path=arguments.out / "folds",
        **keys,
    )
    table = mean_scores(without_artefacts(scores)).drop(index=HALVES)
    table["seconds"] = scores["seconds"].mean("fold").to_series()
    table.to_csv(arguments.out / "selection.csv")
    differences(scores, "default").to_csv(arguments.out / "differences.csv", index=False)
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
