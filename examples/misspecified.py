"""Fit screens that violate the assumptions of the model, and find out which diagnostics show it.

The same 120 perturbations are simulated five times: as the model assumes; with only half of the cells of each
perturbation responding; on plates with plate effects, with held-out perturbations on all plates; and twice with
held-out perturbations on a plate of their own. Only the last fit knows the plates.

The script writes misspecified.csv, misspecified.png (coverage and transforms) and misspecified_cells.png (variance over
cells) to the working directory.
"""

import os
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

import distpert
from distpert.plots import plot_coverage, plot_pit

quick = bool(os.environ.get("DISTPERT_QUICK"))
N_CELLS, N_CONTROLS, N_PLATES = 200, 2000, 4
num_draws = 100 if quick else 300

screen = distpert.simulate(
    n_perturbations=120,
    n_genes=20 if quick else 40,
    n_cells=N_CELLS,
    n_controls=N_CONTROLS,
    explained_share=0.9,
    seed=1,
)
centers = screen.truth["center"].to_numpy()
labels = screen.truth["perturbation"].to_numpy()
responding = screen.truth["histogram"].sel(context="context0").to_numpy()  # (perturbation, gene, bin)
cells_of_control = screen.adata[screen.adata.obs["perturbation"] == "control"]
counts = distpert.count_histograms(screen.adata).select([]).counts.to_numpy()[0]
control = counts / counts.sum(axis=-1, keepdims=True)
held_out = sorted(labels[::3])
rng = np.random.default_rng(0)


def draw_cells(histogram, n):
    """Draw cells (cell, gene) with independent genes, as in the model."""
    drawn = (rng.random((n, len(histogram), 1)) > histogram.cumsum(axis=-1)[:, :-1]).sum(axis=-1)
    return np.take_along_axis(centers.T, drawn, axis=0)


def make_screen(groups):
    """Make an AnnData of groups (label, plate, cells)."""
    obs = [(label, f"plate{plate}") for label, plate, matrix in groups for _ in range(len(matrix))]
    obs = pd.DataFrame(obs, columns=["perturbation", "plate"]).rename(index=str)
    return AnnData(np.concatenate([m for *_, m in groups]).astype(np.float32), obs=obs, var=screen.adata.var)


def half_respond():
    """Simulate a screen in which on average half of the cells respond; the others are like controls."""
    groups = [("control", 0, cells_of_control.X)]
    for label, histogram, n in zip(labels, responding, rng.binomial(N_CELLS, 0.5, len(labels)), strict=True):
        groups.append((label, 0, np.concatenate([draw_cells(histogram, n), draw_cells(control, N_CELLS - n)])))
    return make_screen(groups)


def on_plates(plate_of, size=0.3):
    """Simulate a screen with a plate for each label. Plates shift all histograms by a random walk of the logits."""
    steps = rng.normal(0, size, (N_PLATES, *control.shape)).cumsum(axis=-1)

    def shifted(histogram, plate):
        weight = (histogram + 1e-4) * np.exp(steps[plate] - steps[plate].mean(axis=-1, keepdims=True))
        return weight / weight.sum(axis=-1, keepdims=True)

    groups = [("control", plate, draw_cells(shifted(control, plate), N_CONTROLS)) for plate in range(N_PLATES)]
    for label, histogram, plate in zip(labels, responding, plate_of, strict=True):
        groups.append((label, plate, draw_cells(shifted(histogram, plate), N_CELLS)))
    return make_screen(groups)


def heterogeneity(adata, prediction):
    """Variance over cells of the position along the predicted shift, relative to independent genes.

    T = Var(w·x) / Σ w² Var(x), with w the predicted shift of the means divided by the variance. Returned for the
    perturbed cells and for the controls.
    """
    mean = prediction.moments()["mean"].mean("draw")
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    of_control = adata.X[is_control]
    found = []
    for label in held_out:
        shift = mean.sel(perturbation=label).to_numpy() - of_control.mean(axis=0)
        weight = shift / of_control.var(axis=0)
        both = adata.X[(adata.obs["perturbation"] == label).to_numpy()], of_control
        found.append([(x @ weight).var() / (weight**2 @ x.var(axis=0)) for x in both])
    return np.array(found).T


last, third = N_PLATES - 1, np.arange(len(labels)) // 3
new_plate = on_plates(np.where(np.isin(labels, held_out), last, third % last))
screens = {
    "as assumed": (screen.adata, None),
    "half respond": (half_respond(), None),
    "shared plates": (on_plates(third % N_PLATES), None),
    "new plate": (new_plate, None),
    "new plate, told": (new_plate, "plate"),
}
tables, fits, dispersion = {}, {}, {}
for name, (adata, key) in screens.items():
    is_held = adata.obs["perturbation"].isin(held_out)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="only control cells in plate3")  # intended here
        fits[name] = distpert.fit(adata[~is_held], screen.embeddings, context_key=key, progress_bar=False)
    context = f"plate{last}" if key else None
    prediction = fits[name].predict(held_out, context=context, num_draws=num_draws, progress_bar=False)
    tables[name] = distpert.calibration(prediction, adata[is_held], n_pit_bins=10)
    if not key:
        dispersion[name] = heterogeneity(adata, prediction)

rows = {}
for name, table in tables.items():
    of_mean = table.sel(moment="mean", level=0.9)
    row = {"explained": fits[name].explained_share, "predictable": fits[name].left_out_r2()["single genes"]}
    row |= {"concentration": float(np.exp(fits[name].parameters["log_concentration"]).median())}
    row |= {column: float(of_mean[column]) for column in ("coverage", "coverage_lower", "coverage_upper")}
    row |= {column: float(of_mean[column]) for column in ("width", "interval_score")}
    row["cramer"] = float(table["cramer"].mean())
    for moment in table["moment"].to_numpy():
        bars = table.sel(moment=moment)
        row[f"bars out, {moment}"] = int(((bars["pit"] < bars["pit_lower"]) | (bars["pit"] > bars["pit_upper"])).sum())
        row[f"p, {moment}"] = float(bars["pit_p_value"])
    outside = (table["pit_cells"] < table["pit_cells_lower"]) | (table["pit_cells"] > table["pit_cells_upper"])
    row["bars out, cells"], row["p, cells"] = int(outside.sum()), float(table["pit_cells_p_value"])
    row["risk of surest half"] = float(table["selective_risk"].sel(share=0.5))
    if name in dispersion:
        row["T"], row["T, controls"] = np.median(dispersion[name], axis=1)
    rows[name] = row
    stratum = of_mean["coverage_by_stratum"].sel(stratifier="effect_size").to_numpy().round(2)
    print(f"{name:<18} coverage at .9 by effect size, from the smallest to the largest: {stratum}")
summary = pd.DataFrame(rows)
summary.to_csv("misspecified.csv")
print(f"\n{len(held_out)} held-out perturbations. Coverage, width and score: mean of each gene at .9.")
print("Bars out: of 10 bars, outside the band of each. p: of a flat transform")
print(summary.round(3).to_string())

figure, axes = plt.subplots(2, 5, figsize=(14, 6), sharex="row", sharey="row", layout="constrained")
for column, (name, table) in zip(axes.T, tables.items(), strict=True):
    plot_coverage(table, ax=column[0]).set(title=name, xlim=(0.3, 1), ylim=(0.3, 1))
    flat = float(table["pit_p_value"].sel(moment="mean"))
    plot_pit(table, "mean", ax=column[1]).set_title(f"mean (flat: p = {flat:.2g})", fontsize="medium")
    if name != "as assumed":
        for ax in column:
            ax.set_ylabel("")
            ax.get_legend().remove()
axes[1, 0].set_ylim(0, 1.1 * max(float(table["pit"].sel(moment="mean").max()) for table in tables.values()))
figure.savefig("misspecified.png", dpi=150)

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for i, (perturbed, of_control) in enumerate(dispersion.values()):
    side = rng.uniform(-0.12, 0.12, len(perturbed))
    ax.plot(i - 0.18 + side, of_control, ".", color="#555555", label="controls" if not i else None)
    ax.plot(i + 0.18 + side, perturbed, ".", color="#D55E00", label="perturbed" if not i else None)
ax.axhline(1, color="#555555", ls="--", lw=1, label="as assumed by the model")
ax.set(xticks=range(len(dispersion)), xticklabels=dispersion, ylabel="T: variance over cells, relative")
figure.legend(frameon=False, loc="outside upper center", ncols=3)
figure.savefig("misspecified_cells.png", dpi=150)
print("\nWrote misspecified.csv, misspecified.png and misspecified_cells.png")
