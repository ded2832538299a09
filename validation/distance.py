"""Do width and error increase with the distance from training, if effects have the same size everywhere?

    python validation/distance.py --out distance

On a published screen, genes that resemble no other may have small effects, which makes distant predictions the better
ones. Here screens are drawn from the model, with embeddings in four dimensions and responses of the same size
everywhere. Half of the perturbations are held out. The output folder gets distance.md.
"""

import argparse
from pathlib import Path

import numpy as np
from calibrate import by_stratum, markdown

import distpert


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--screens", type=int, default=4)
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args(argv)

    pooled = distpert.combine_calibrations(*(of_screen(seed, arguments.draws) for seed in range(arguments.screens)))
    strata = pooled.sel(stratifier="distance")
    errors, widths, effects = by_stratum(pooled, "distance")
    held = strata["coverage_by_stratum"].sel(level=0.9).mean("moment").to_numpy()
    columns = [strata["mean_by_stratum"].to_numpy(), widths, errors, effects, held]
    heads = ["distance", "width of the mean's 50 % posterior interval", "Cramér", "effect size", "coverage at 90 %"]
    lines = [[f"{value:.3g}" for value in line] for line in zip(*columns, strict=True)]
    text = "\n".join(markdown(heads, lines))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "distance.md").write_text(
        f"# By distance, {pooled.sizes['perturbation']} held-out perturbations\n\n{text}\n"
    )
    print(text)


def of_screen(seed: int, num_draws: int):
    screen = distpert.simulate(
        n_perturbations=160, n_genes=60, n_cells=150, embedding_dim=4, explained_share=0.95, seed=seed
    )
    histograms = distpert.count_histograms(screen.adata)
    left_out = sorted(np.random.default_rng(seed).choice(histograms.perturbations, 80, replace=False).tolist())
    fit = distpert.fit(histograms.drop(left_out), screen.embeddings, seed=seed, progress_bar=False)
    prediction = fit.predict(left_out, num_draws=num_draws, progress_bar=False)
    return distpert.calibration(prediction, histograms.select(left_out), seed=seed)


if __name__ == "__main__":
    main()
