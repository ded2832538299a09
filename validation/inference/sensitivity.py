"""How much do answers depend on priors, on the number of bins, and on which gene has which embedding?

    python validation/inference/sensitivity.py --out sensitivity

On a real screen, RENGE on day 5 by default, each variant is fitted again. Seen perturbations: the change of the median
of the mean, and of the width of its interval, in units of the width as it is. Unseen ones: Cramér distance in five
folds. With shuffled embeddings, genes tell nothing, and the score must not improve. The output folder gets refits.csv
and, where ArviZ has it, psense.csv.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import distpert
from distpert.model.priors import Priors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--data", default=None, help="an h5ad that screens.py recognizes; by default RENGE on day 5")
    parser.add_argument("--embeddings", default=None, help="a file that distpert.read_embeddings reads")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.data:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from screens import open_screen

        adata, keys = open_screen(arguments.data, context_key=None)
        embeddings = distpert.read_embeddings(arguments.embeddings)
    else:
        adata, keys = distpert.datasets.renge(), {}
        embeddings = adata.uns["embeddings"]
        adata = adata[adata.obs["day"] == "5"].copy()
    rng = np.random.default_rng(0)
    shuffled = embeddings.copy()
    shuffled.index = rng.permutation(embeddings.index)
    variants = {
        "as it is": {},
        "another seed": {"seed": 1},
        "half the prior sizes of shifts": {"priors": Priors(common=0.15, context=0.15, loading=0.15)},
        "twice the prior sizes of shifts": {"priors": Priors(common=0.6, context=0.6, loading=0.6)},
        "steps of shifts independent": {"priors": Priors(loading_smoothness=0.0)},
        "prior of concentration at a tenth": {"priors": Priors(log_concentration=(5.7, 1.5))},
        "10 bins": {"n_bins": 10},
        "25 bins": {"n_bins": 25},
        "shuffled embeddings": {"embeddings": shuffled},
    }
    rows, reference = [], None
    for name, options in tqdm(variants.items(), desc="variants"):
        options = dict(options)
        table = options.pop("embeddings", embeddings)
        fit = distpert.fit(adata, table, progress_bar=False, **keys, **options)
        prediction = fit.predict(fit.perturbations, num_draws=arguments.draws, progress_bar=False)
        summary = prediction.summary(0.9)["mean"]
        width = summary.sel(statistic="upper") - summary.sel(statistic="lower")
        if reference is None:
            reference = summary.sel(statistic="median"), width
            psense(prediction, adata, arguments.out)
        moved = np.abs(summary.sel(statistic="median") - reference[0]) / reference[1]
        options_of_model = {key: value for key, value in options.items() if key in ("priors",)}
        scores = distpert.cross_validate(
            adata, table, models=[distpert.cross_validation.Distpert(**options_of_model)] if options_of_model else
            ["distpert"], n_folds=arguments.folds, n_bins=options.get("n_bins", 15), seed=0, progress_bar=False, **keys,
        )  # fmt: skip
        rows.append(
            {
                "variant": name,
                "change of the median, in widths": float(moved.median()),
                "ratio of widths": float((width / reference[1]).median()),
                "R² left out": fit.left_out_r2()["single genes"],
                "unseen: Cramér": float(scores["cramer"].mean()),
            }
        )
        pd.DataFrame(rows).to_csv(arguments.out / "refits.csv", index=False)
    print(pd.DataFrame(rows).round(5).to_string(index=False))


def psense(prediction: distpert.Prediction, adata, out: Path) -> None:
    """Power-scaling sensitivity (Kallioinen et al. 2024), by ArviZ from version 1 on."""
    import arviz as az

    if not hasattr(az, "psense_summary"):
        print("this ArviZ has no psense_summary; it needs Python 3.12 and ArviZ 1")
        return
    tree = distpert.to_arviz(prediction.to_datatree(adata))
    table = az.psense_summary(tree, var_names=["concentration"])
    table.to_csv(out / "psense.csv")
    print(table.head(20).to_string())


if __name__ == "__main__":
    main()
