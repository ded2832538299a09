"""Does another screen tell more about unseen perturbations than what is known of their genes?

    python validation/signatures.py --data k562.h5ad --other k562_seed1.h5ad --out signatures
    python validation/signatures.py --data norman.h5ad --halves --out signatures

Cross-validates distpert on a screen with the sources of embeddings alone, and with the signatures of another screen as
one source more. All perturbations of the other screen are used, also those that are held out in the first: its cells
are others. With --halves, the cells of one file are split at random into the two screens. That is an upper bound,
because everything but the cells is the same.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from screens import BUNDLED, EMBEDDINGS_HELP, open_embeddings, open_screen

import distpert
from distpert.embeddings.sources import as_embeddings

SCORES = ["nll", "cramer", "wasserstein", "rmae_mean", "rmae_variance", "pearson_shift_centered"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    second = parser.add_mutually_exclusive_group(required=True)
    second.add_argument("--other", help="the other screen")
    second.add_argument("--halves", action="store_true", help="split the cells of --data instead")
    parser.add_argument("--embeddings", nargs="+", default=[BUNDLED], help=EMBEDDINGS_HELP)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--n-folds", type=int, default=9)
    arguments = parser.parse_args(argv)
    adata, keys = open_screen(arguments.data)
    if arguments.halves:
        first = np.random.default_rng(0).random(adata.n_obs) < 0.5
        adata, other = adata[first].copy(), adata[~first].copy()
        other_keys = keys
    else:
        other, other_keys = open_screen(arguments.other)
    known = open_embeddings(arguments.embeddings)
    elsewhere = distpert.fit(other, known, progress_bar=False, **other_keys)
    both = as_embeddings([known, elsewhere.signatures()])
    arguments.out.mkdir(parents=True, exist_ok=True)
    scores = {}
    for name, embeddings in (("known", known), ("with signatures", both)):
        scores[name] = distpert.cross_validate(
            adata,
            embeddings,
            models=["distpert", "pooled"],
            n_folds=arguments.n_folds,
            path=arguments.out / name.replace(" ", "_"),
            **keys,
        ).sel(model="distpert")
    labels = sorted(set(scores["known"]["perturbation"].values) & set(elsewhere.perturbations))
    rows = []
    for score in SCORES:
        values = {
            name: found[score].sel(perturbation=labels).stack(row=[...]).dropna("row").to_numpy()
            for name, found in scores.items()
        }
        difference = values["with signatures"] - values["known"]
        rng = np.random.default_rng(0)
        means = [rng.choice(difference, len(difference)).mean() for _ in range(2000)]
        low, high = np.quantile(means, [0.025, 0.975])
        rows.append(
            {"score": score, **{name: v.mean() for name, v in values.items()}, "difference": difference.mean(),
             "lower": low, "upper": high}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out / "signatures.csv", index=False)
    print(f"{len(labels)} perturbations that both screens have")
    print(table.round(5).to_string(index=False))


if __name__ == "__main__":
    main()
