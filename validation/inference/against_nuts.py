"""Markov chains and variational inference on the same small screen: means, widths and coverage of the truth.

    python validation/inference/against_nuts.py --out nuts

A screen of 12 perturbations and 15 genes is drawn from the model. The output folder gets comparison.csv, and a picture
of the posterior means and interval widths of both.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import distpert
from distpert.histograms.moments import MOMENTS, histogram_moments


def main(argv: Sequence[str] | None = None) -> None:
    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--perturbations", type=int, default=12)
    parser.add_argument("--unseen", type=int, default=20)
    parser.add_argument("--genes", type=int, default=15)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    screen = distpert.simulate(
        n_perturbations=arguments.perturbations,
        n_unseen=arguments.unseen,
        n_genes=arguments.genes,
        seed=arguments.seed,
    )
    labels = screen.truth["perturbation"].to_numpy().tolist()
    truths = histogram_moments(screen.truth["histogram"].isel(context=0).to_numpy(), screen.truth["center"].to_numpy())
    summaries = {}
    for inference in ("nuts", "svi"):
        fit = distpert.fit(screen.adata, screen.embeddings, inference=inference, progress_bar=inference == "nuts")
        print(fit)
        summaries[inference] = fit.predict(labels, num_draws=arguments.draws, progress_bar=False).summary(0.9)
    rows = []
    figure, axes = plt.subplots(2, 4, figsize=(11, 5.5), layout="constrained")
    for column, (moment, truth) in enumerate(zip(MOMENTS, truths, strict=True)):
        parts = {name: summary[moment].to_numpy() for name, summary in summaries.items()}
        for which, chosen in (
            ("seen", slice(None, arguments.perturbations)),
            ("unseen", slice(arguments.perturbations, None)),
        ):
            for name, (_, lower, upper) in parts.items():
                inside = ((truth >= lower) & (truth <= upper))[chosen]
                rows.append({"moment": moment, "which": which, "inference": name, "coverage of .90": inside.mean(),
                             "median width": np.median((upper - lower)[chosen])})  # fmt: skip
        for ax, values, what in (
            (axes[0, column], [parts[name][0] for name in ("nuts", "svi")], "median"),
            (axes[1, column], [parts[name][2] - parts[name][1] for name in ("nuts", "svi")], "width of 90 %"),
        ):
            for which, chosen, color in (
                ("unseen", slice(arguments.perturbations, None), "#D55E00"),
                ("seen", slice(None, arguments.perturbations), "#0072B2"),
            ):
                ax.scatter(values[0][chosen], values[1][chosen], s=4, color=color, alpha=0.5, lw=0, label=which)
            ends = [min(v.min() for v in values), max(v.max() for v in values)]
            ax.plot(ends, ends, color="#555555", lw=0.8)
            ax.set_title(f"{moment}: {what}", fontsize="medium")
    axes[0, 0].legend(frameon=False, fontsize="small")
    figure.supxlabel("Markov chains")
    figure.supylabel("variational inference")
    figure.savefig(arguments.out / "comparison.png", dpi=120)
    table = pd.DataFrame(rows)
    table.to_csv(arguments.out / "comparison.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
