"""Compare the calibration of four methods on held-out perturbations.

The methods are distpert, distpert without its latent uncertainty, the pooled histogram, and conformal intervals around
the pooled histogram. The screen is simulated from the model, so its assumptions are right. It has 100 perturbations,
each held out once in 5 folds.

The script writes comparing_calibration.csv, comparing_calibration.png (coverage) and comparing_calibration_pit.png
(transforms and selective risk) to the working directory.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import distpert
from distpert.baselines import PooledHistogram
from distpert.plots import plot_coverage, plot_pit, plot_selective_risk

quick = bool(os.environ.get("DISTPERT_QUICK"))
n_genes, num_draws = (20, 100) if quick else (60, 300)
LEVELS = (0.3, 0.5, 0.8, 0.9, 0.95)

screen = distpert.simulate(n_perturbations=100, n_genes=n_genes, explained_share=0.9)
adata, label = screen.adata, screen.adata.obs["perturbation"]
splits = distpert.split_perturbations(set(label) - {"control"}, n_folds=5)

tables = {"distpert": [], "Dirichlet alone": [], "pooled": [], "pooled, conformal": []}
for fold in splits.folds:
    held_out = sorted(fold.held_out)
    cells = adata[label.isin(held_out)]
    training = distpert.count_histograms(adata[~label.isin(held_out)])  # bins come from training cells only

    fit = distpert.fit(training, screen.embeddings, progress_bar=False)
    posterior = fit.predict(held_out, num_draws=num_draws, progress_bar=False)

    pooled = PooledHistogram().fit(training, fit.embeddings)
    calibrating = training.perturbations[::2]  # half of the training sets the width of conformal intervals
    half = PooledHistogram().fit(training.drop(calibrating), fit.embeddings)

    predictions = {
        "distpert": posterior,
        "Dirichlet alone": distpert.without_latent_uncertainty(posterior),
        "pooled": pooled.predict(held_out),
        "pooled, conformal": distpert.conformalize(half.predict(held_out), half.predict(calibrating), training),
    }
    for name, prediction in predictions.items():
        tables[name].append(distpert.calibration(prediction, cells, levels=LEVELS))
print(fit, "\n")

pooled_over_folds = {name: distpert.combine_calibrations(*folds) for name, folds in tables.items()}

# One row for each method, moment and level.
columns = ["coverage", "coverage_lower", "coverage_upper", "width", "interval_score"]
rows = [
    table[columns].assign(width_at_coverage=distpert.width_at_coverage(table, LEVELS[1:]).rename(coverage="level"))
    for table in pooled_over_folds.values()
]
results = xr.concat(rows, "method").assign_coords(method=list(pooled_over_folds)).sel(level=list(LEVELS[1:]))
frame = results.to_dataframe().reset_index("level")
frame.to_csv("comparing_calibration.csv")
print("Mean of each gene: coverage, width and score of intervals")
print(frame.xs("mean", level="moment").round(3).to_string(), "\n")
print("Coverage at 0.9, all moments")
print(results["coverage"].sel(level=0.9).to_pandas().round(3).to_string(), "\n")

# Methods are compared on the same perturbations, so a resample has the same perturbations for all methods.
print("Interval score at 0.9 relative to that of distpert, with a 95 % band")
score = {name: t["interval_score_by_perturbation"].sel(level=0.9) for name, t in pooled_over_folds.items()}
n_perturbations = score["distpert"].sizes["perturbation"]
drawn = np.random.default_rng(0).integers(n_perturbations, size=(1000, n_perturbations))
drawn = xr.DataArray(drawn, dims=("resample", "perturbation"))
for name in list(score)[1:]:
    ratio = score[name].mean("perturbation") / score["distpert"].mean("perturbation")
    again, of_distpert = (score[key].isel(perturbation=drawn).mean("perturbation") for key in (name, "distpert"))
    lower, upper = (again / of_distpert).quantile([0.025, 0.975], "resample")
    text = [
        f"{m} {float(ratio.sel(moment=m)):.2f} ({lower.sel(moment=m):.2f} to {upper.sel(moment=m):.2f})"
        for m in ratio["moment"].to_numpy()
    ]
    print(f"  {name:<18}", ", ".join(text))

print("\nMean of each gene, level 0.9: coverage by stratum, from the smallest values to the largest")
for name, table in pooled_over_folds.items():
    strata = table["coverage_by_stratum"].sel(level=0.9, moment="mean")
    for by in ("effect_size", "expression"):
        print(f"  {name:<18}{by:<12}", *strata.sel(stratifier=by).to_numpy().round(2))
risk = pooled_over_folds["distpert"]
print("\nSelective risk of distpert for the most certain 20, 50 and 80 %, with the ends of the band")
print(*(risk[f"selective_risk{end}"].isel(share=[1, 4, 7]).to_numpy().round(2) for end in ("", "_lower", "_upper")))

figure, axes = plt.subplots(1, 4, figsize=(13, 3.7), sharex=True, sharey=True, layout="constrained")
for ax, (name, table) in zip(axes, pooled_over_folds.items(), strict=True):
    plot_coverage(table, ax=ax).set(title=name, xlim=(0, 1), ylim=(0, 1))
    ax.label_outer()
figure.savefig("comparing_calibration.png", dpi=150)

figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
for ax, name in zip(axes[:3], pooled_over_folds, strict=False):
    plot_pit(pooled_over_folds[name], "mean", ax=ax).set_title(f"{name}: mean")
plot_selective_risk(pooled_over_folds["distpert"], ax=axes[3]).set_title("distpert: selective risk")
figure.savefig("comparing_calibration_pit.png", dpi=150)
print("\nWrote comparing_calibration.csv, comparing_calibration.png and comparing_calibration_pit.png")
