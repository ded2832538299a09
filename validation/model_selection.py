"""Variants of the settings, one change at a time, on perturbations left out.

    python validation/model_selection.py --data k562.h5ad --embeddings embeddings.npz --out selection --folds 0 3 6

Each row is distpert with one setting that differs from the default: the number of factors, the priors or the
optimization. The folder gets selection.csv (means of scores), differences.csv (paired differences from the default with
95 % intervals), and in folds/ what is done: the same call goes on where it was interrupted.
"""

import argparse
from pathlib import Path

from report import HALVES, differences, mean_scores, without_artefacts
from screens import AUTO, open_screen

import distpert
from distpert.cross_validation import Distpert


def variants(num_draws: int) -> list[tuple[str, Distpert]]:
    """Models by name, the default first."""

    def model(**settings) -> Distpert:
        return Distpert(num_draws=num_draws, **settings)

    def optimized(**settings) -> Distpert:
        return model(optimization=distpert.Optimization(**settings))

    def with_priors(**settings) -> Distpert:
        return model(priors=distpert.Priors(**settings))

    return [
        ("default", model()),
        ("factors=8", model(n_factors=8)),
        ("factors=32", model(n_factors=32)),
        ("epochs=25", optimized(max_epochs=25, min_steps=1)),
        ("epochs=200-no-stopping-rule", optimized(max_epochs=200, patience=200)),
        ("step-size=0.02", optimized(step_size=0.02)),
        ("step-size=0.08", optimized(step_size=0.08)),
        ("smaller-loadings", with_priors(loading=0.03)),
        ("larger-loadings", with_priors(loading=1.0)),
        ("steps-independent", with_priors(loading_smoothness=0.0)),
        ("smaller-common-shift", with_priors(common=0.03)),
        ("lower-concentration", with_priors(log_concentration=(6.0, 1.5))),
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
