"""Do intervals of perturbations in training hold what thousands of new cells show?

    python validation/inference/near_truth.py --data k562.h5ad --near near.h5ad --embeddings embeddings.npz --out near

Both files are simulated screens with the same parameters: one with as many cells as a screen has, the other with
thousands of cells for some of the perturbations. One ninth of the perturbations is left out of the training. The output
folder gets coverage.csv.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import pandas as pd

import distpert
from distpert.cross_validation.protocol import count_fold
from distpert.cross_validation.splits import split_perturbations
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import read_screen

LEVELS = (0.5, 0.9)


def main(argv: Sequence[str] | None = None) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from run import can_be_held_out
    from screens import BUNDLED, EMBEDDINGS_HELP, open_embeddings, open_screen

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="an h5ad that screens.py recognizes")
    parser.add_argument("--near", required=True, help="the same screen with thousands of cells")
    parser.add_argument("--embeddings", nargs="+", default=[BUNDLED], help=EMBEDDINGS_HELP)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    adata, keys = open_screen(arguments.data)
    embeddings = open_embeddings(arguments.embeddings)
    screen = read_screen(adata, ScreenKeys(**keys))
    usable = can_be_held_out(adata.obs["perturbation"], embeddings)
    labels = {str(label) for label in screen.perturbation} - {"", screen.control}
    splits = split_perturbations(sorted(usable), 9, seed=0, training_only=sorted(labels - set(usable)))
    fold = splits.folds[arguments.fold]
    training, _ = count_fold(screen, fold, 15)
    fit = distpert.fit(training, embeddings)
    near = ad.read_h5ad(arguments.near)
    there = [str(label) for label in near.obs["perturbation"].unique() if label != "control" and label in usable]
    rows = []
    for which, chosen in (
        ("seen", [label for label in there if label in fit.perturbations]),
        ("unseen", [label for label in there if label in fold.held_out]),
    ):
        prediction = fit.predict(chosen, num_draws=arguments.draws)
        table = distpert.calibration(prediction, near[near.obs["perturbation"].isin(chosen)].copy(), levels=LEVELS)[
            "coverage"
        ]
        for level in LEVELS:
            for moment in table["moment"].to_numpy().tolist():
                value = float(table.sel(moment=moment, level=level))
                rows.append({"which": which, "perturbations": len(chosen), "level": level, "moment": moment,
                             "coverage": value})  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.out / "coverage.csv", index=False)
    print(frame.pivot_table("coverage", ["which", "perturbations", "level"], "moment").round(3).to_string())


if __name__ == "__main__":
    main()
