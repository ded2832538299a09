"""Measure calibration on held-out perturbations: distpert, the Dirichlet alone, and conformal intervals of baselines.

    python validation/calibrate.py --data k562.h5ad --embeddings embeddings.npz --out k562 --conformal pooled

The output folder gets calibration.md and calibration.csv (coverage with bands, width, interval score, width at equal
coverage), and calibration.png. The table of each method and fold is kept in folds/, and an interrupted run continues
from there. A quarter of each fold's training perturbations calibrates the conformal intervals. The baseline is fitted
to the rest.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from run import can_be_held_out
from screens import AUTO, BUNDLED, EMBEDDINGS_HELP, open_embeddings, open_screen
from tqdm import tqdm

import distpert
from distpert._shared.labels import genes_of
from distpert.baselines import BASELINES
from distpert.cross_validation.protocol import count_fold
from distpert.cross_validation.splits import Fold, split_perturbations
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import read_screen
from distpert.plots import plot_coverage, plot_pit

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975)
SHOWN = [0.5, 0.8, 0.9, 0.95]
POSTERIOR, DIRICHLET = "distpert", "dirichlet_alone"
TITLES = {POSTERIOR: "distpert", DIRICHLET: "Dirichlet alone"}


def main(argv: Sequence[str] | None = None) -> None:
    matplotlib.use("Agg")
    arguments = parse(argv)
    adata, keys = open_screen(arguments.data, dataset=arguments.dataset, context_key=arguments.context_key)
    embeddings = open_embeddings(arguments.embeddings)
    screen = read_screen(adata, ScreenKeys(**keys))
    usable = can_be_held_out(adata.obs["perturbation"], embeddings)
    labels = {str(label) for label in screen.perturbation} - {"", screen.control}
    n_folds = len({gene for label in usable for gene in genes_of(label)})
    n_folds = n_folds if arguments.leave_one_out else arguments.n_folds
    others = sorted(labels - set(usable))
    splits = split_perturbations(sorted(usable), n_folds, seed=arguments.seed, training_only=others)
    folder = arguments.out / "folds"
    folder.mkdir(parents=True, exist_ok=True)
    methods = [POSTERIOR, DIRICHLET, *(f"conformal_{name}" for name in arguments.conformal)]
    for i, fold in enumerate(tqdm(splits.folds, desc="calibration", unit="fold")):
        missing = [name for name in methods if not (folder / f"{name}_{i}.nc").exists()]
        if missing:
            for name, table in of_fold(screen, fold, missing, embeddings, arguments.draws, [arguments.seed, i]):
                table.to_netcdf(folder / f"{name}_{i}.nc")
    tables = {
        name: distpert.combine_calibrations(
            *(xr.load_dataset(folder / f"{name}_{i}.nc") for i in range(len(splits.folds)))
        )
        for name in methods
    }
    write(arguments.out, tables)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="an h5ad that screens.py recognizes")
    parser.add_argument("--embeddings", nargs="+", default=[BUNDLED], help=EMBEDDINGS_HELP)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--conformal", nargs="*", default=[], choices=list(BASELINES), metavar="BASELINE",
                        help="baselines with conformal intervals")  # fmt: skip
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--n-folds", type=int, default=9)
    number.add_argument("--leave-one-out", action="store_true", help="as many folds as there are perturbed genes")
    parser.add_argument("--dataset", default=None, help="one of obs['dataset'], if the file has several")
    parser.add_argument("--context-key", default=AUTO, type=lambda name: None if name == "none" else name,
                        help="column of obs; by default a usual one; none for no contexts")  # fmt: skip
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def of_fold(
    screen, fold: Fold, methods: Sequence[str], embeddings: Embeddings, num_draws: int, seed: list[int]
) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the calibration of each method on the held-out perturbations of a fold."""
    training, held_out = count_fold(screen, fold, 15)
    labels = sorted(fold.held_out)
    prediction = None
    for method in methods:
        if method in (POSTERIOR, DIRICHLET):
            if prediction is None:
                fit = distpert.fit(training, embeddings, seed=seed[0], progress_bar=False)
                prediction = fit.predict(labels, num_draws=num_draws, seed=seed[0], progress_bar=False)
            one = prediction if method == POSTERIOR else distpert.without_latent_uncertainty(prediction)
        else:
            known = [label for label in training.perturbations if embeddings.has(label)]
            shuffled = np.random.default_rng(seed).permutation(known).tolist()
            calibrating = shuffled[: len(known) // 4]
            baseline = BASELINES[method.removeprefix("conformal_")]()
            fitted = baseline.fit(training.drop(calibrating), embeddings, seed=seed[0])
            one = distpert.conformalize(fitted.predict(labels), fitted.predict(calibrating), training)
        yield method, distpert.calibration(one, held_out, levels=LEVELS, seed=seed[0])


def write(out: Path, tables: dict[str, xr.Dataset]) -> None:
    """Write the tables and the picture."""
    rows = pd.DataFrame(
        [
            {
                "method": method,
                "moment": moment,
                "level": level,
                **{
                    name: float(table[name].sel(moment=moment, level=level))
                    for name in ("coverage", "coverage_lower", "coverage_upper", "width", "interval_score")
                },
                "width_at_coverage": float(sharp.sel(moment=moment, coverage=level)),
            }
            for method, table in tables.items()
            for sharp in [distpert.width_at_coverage(table, SHOWN)]
            for moment in table["moment"].to_numpy().tolist()
            for level in SHOWN
        ]
    )
    rows.to_csv(out / "calibration.csv", index=False)
    posterior = tables[POSTERIOR]
    n_perturbations = len(np.unique(posterior["perturbation"]))
    text = [f"# Calibration on {n_perturbations} held-out perturbations", ""]
    for name in ("coverage", "interval_score", "width_at_coverage"):
        wide = rows.pivot(index=["moment", "method"], columns="level", values=name)
        order = [(moment, method) for moment in posterior["moment"].to_numpy() for method in tables]
        wide = wide.loc[order].reset_index()
        lines = [[row[0], f"`{row[1]}`", *(f"{value:.3g}" for value in row[2:])] for row in wide.to_numpy().tolist()]
        text += [f"## {name.replace('_', ' ')}", "", *markdown(["moment", "method", *SHOWN], lines), ""]
    pit, n_bars = posterior["pit"], posterior.sizes["pit_bin"]
    each, at_once = (
        ((pit < posterior[f"{band}_lower"]) | (pit > posterior[f"{band}_upper"])).sum("pit_bin").to_numpy()
        for band in ("pit", "pit_simultaneous")
    )
    p_value = [f"{value:.2g}" for value in posterior["pit_p_value"].to_numpy()]
    ends = ([f"{value:.2f}" for value in end.to_numpy()] for end in (pit.min("pit_bin"), pit.max("pit_bin")))
    lines = list(zip(posterior["moment"].to_numpy(), each, at_once, p_value, *ends, strict=True))
    bands = [f"of {n_bars} bars outside {band}" for band in ("their band", "the simultaneous band")]
    heads = ["moment", *bands, "p-value of flatness", "lowest", "highest"]
    text += ["## transforms", "", *markdown(heads, lines), ""]
    risk = posterior["selective_risk"]
    text += ["## selective risk", "", *markdown(
        ["share", *(f"{share:.1f}" for share in risk["share"].to_numpy())],
        [["Cramér, relative", *(f"{value:.2f}" for value in risk.to_numpy())]],
    ), ""]  # fmt: skip
    for stratifier in ("distance", "spread"):
        strata = posterior.sel(stratifier=stratifier)
        held = strata["coverage_by_stratum"].sel(level=0.9).mean("moment").to_numpy()
        errors, widths, effects = by_stratum(posterior, stratifier)
        columns = [strata["mean_by_stratum"].to_numpy(), widths, errors, errors / effects, held]
        lines = [[f"{value:.3g}" for value in line] for line in zip(*columns, strict=True)]
        width = "width of the mean's 50 % posterior interval"
        heads = [stratifier, width, "Cramér", "Cramér / effect size", "coverage at 90 %"]
        text += [f"## by {stratifier}", "", *markdown(heads, lines), ""]
    (out / "calibration.md").write_text("\n".join(text))
    print("\n".join(text))
    draw(tables).savefig(out / "calibration.png", dpi=150)


def by_stratum(posterior: xr.Dataset, stratifier: str) -> tuple[np.ndarray, ...]:
    """Mean Cramér distance, spread and effect size of quarters of the groups, sorted by the stratifier."""
    values = posterior[stratifier].broadcast_like(posterior["cramer"]).to_numpy().ravel()
    columns = [posterior[name].to_numpy().ravel() for name in ("cramer", "spread", "effect_size")]
    there = ~np.isnan(columns[0])
    quarters = np.array_split(
        np.flatnonzero(there)[np.argsort(values[there], kind="stable")], posterior.sizes["stratum"]
    )
    return tuple(np.array([array[quarter].mean() for quarter in quarters]) for array in columns)


def draw(tables: dict[str, xr.Dataset]):
    """Coverage of the posterior and of the Dirichlet alone, and the transforms of the posterior."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(10, 6.4), layout="constrained")
    for ax, method in zip(axes.flat, (POSTERIOR, DIRICHLET), strict=False):
        plot_coverage(tables[method], ax=ax).set_title(TITLES[method])
    for ax, moment in zip(axes.flat[2:], tables[POSTERIOR]["moment"].to_numpy().tolist(), strict=True):
        plot_pit(tables[POSTERIOR], moment, ax=ax).set_title(f"distpert: {moment}")
    return figure


def markdown(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


if __name__ == "__main__":
    main()
