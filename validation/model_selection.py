"""What decided the defaults: one change at a time, on perturbations left out.

    python validation/model_selection.py --data k562.h5ad --embeddings embeddings.npz --out selection --folds 0 3 6

Each row is a variant of distpert that differs from the default in one thing. The folder gets selection.csv (means of
scores), differences.csv (paired differences from the default with 95 % intervals), and in folds/ what is done, so that
the same call goes on where it was interrupted.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from report import HALVES, differences, mean_scores, without_artefacts
from screens import AUTO, open_screen

import distpert
from distpert import fitted, fitting, kernels
from distpert.cross_validation import Distpert
from distpert.cross_validation_models import DistpertFit
from distpert.embeddings import Embeddings
from distpert.histograms import Histograms
from distpert.inference import Optimisation
from distpert.kernels import Kernel
from distpert.model import Priors


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The model with something else in place of what is no setting of it, while it fits.

    ``length_factor`` multiplies the length scale that the marginal likelihood chooses; ``powers`` are the kernel's that
    it may choose from; without ``tilts`` perturbed genes are as other genes; without ``strengths`` the responses of
    unseen perturbations are normal.
    """

    num_draws: int
    length_factor: float = 1.0
    powers: tuple[float, ...] = kernels.POWERS
    tilts: bool = True
    strengths: bool = True

    def fit(self, histograms: Histograms, embeddings: Embeddings, *, seed: int = 0) -> DistpertFit:
        with ExitStack() as changes:
            changes.enter_context(patch.object(kernels, "POWERS", self.powers))
            if self.length_factor != 1:
                choose = scaled(fitting.choose_kernel, self.length_factor)
                changes.enter_context(patch.object(fitting, "choose_kernel", choose))
            if not self.tilts:
                for module in (fitting, fitted):
                    changes.enter_context(patch.object(module, "on_target_tilts", no_tilts(module.on_target_tilts)))
            result = Distpert(num_draws=self.num_draws).fit(histograms, embeddings, seed=seed)
            result.fitted.tilts  # noqa: B018 - cached here, as predictions come after the change has been taken back
        if not self.strengths:
            vars(result.fitted)["strengths"] = np.ones(1)  # in place of the cached property
        return result


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
        ("epochs=10", model(optimisation=Optimisation(max_epochs=10, min_steps=1))),
        ("epochs=100-no-stopping-rule", model(optimisation=Optimisation(max_epochs=100, patience=100))),
        ("step-size=0.02", model(optimisation=Optimisation(step_size=0.02))),
        ("step-size=0.08", model(optimisation=Optimisation(step_size=0.08))),
        ("smoother-loadings", model(priors=Priors(loading=0.03))),
        ("rougher-loadings", model(priors=Priors(loading=0.3))),
        ("smoother-common-shift", model(priors=Priors(common=0.2))),
        ("higher-concentration", model(priors=Priors(log_concentration=(8.0, 1.5)))),
        ("half-the-length-scale", Changed(num_draws=num_draws, length_factor=0.5)),
        ("twice-the-length-scale", Changed(num_draws=num_draws, length_factor=2.0)),
        ("rough-kernel-alone", Changed(num_draws=num_draws, powers=(1.0,))),
        ("smooth-kernel-alone", Changed(num_draws=num_draws, powers=(2.0,))),
        ("no-on-target-tilt", Changed(num_draws=num_draws, tilts=False)),
        ("no-heavy-tails", Changed(num_draws=num_draws, strengths=False)),
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name, _ in variants(1)]
    parser.add_argument("--data", required=True, help="an h5ad that screens.py recognises")
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
