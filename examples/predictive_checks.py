"""Run posterior predictive checks on a real screen: find genes that the model fits, and genes that it does not fit.

The screen is RENGE (Ishikawa et al. 2023), as in quickstart.py. Each of its 23 knock-outs is left out of training once,
in four folds. Replicates with as many cells as were observed are drawn from the posterior and from the prior, and
compared with the observed cells.

The script writes predictive_checks.csv (p-values of all knock-outs, days and genes, each left out),
predictive_checks.png (two genes, three statistics) and predictive_checks_p_values.png to the working directory.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import distpert
from distpert.plots import plot_predictive_check

STATISTICS = ["mean", "zero_fraction", "variance", "skewness", "bimodality"]
EXTREME = 0.005  # at each end; of calibrated p-values, one in a hundred is further out
quick = bool(os.environ.get("DISTPERT_QUICK"))
num_draws = 100 if quick else 400

adata = distpert.datasets.renge()
whole = distpert.fit(adata, "embeddings", context_key="day", progress_bar=False)
print(whole, "\n")
folds = distpert.split_perturbations(whole.perturbations, 4).folds
left_out = {name: [] for name in STATISTICS}
for fold in folds[:1] if quick else folds:
    labels = list(fold.held_out)
    training = adata[~adata.obs["perturbation"].isin(labels)].copy()
    fit = distpert.fit(training, "embeddings", context_key="day", progress_bar=False)
    unseen = fit.predict(labels, num_draws=num_draws, progress_bar=False)
    for name in STATISTICS:
        left_out[name].append(distpert.predictive_check(unseen, adata, name))
left_out = {name: xr.concat(checks, "perturbation") for name, checks in left_out.items()}
seen = whole.predict(whole.perturbations, num_draws=num_draws, progress_bar=False)
in_training = {name: distpert.predictive_check(seen, adata, name) for name in STATISTICS}


def extreme_share(p_value):
    """Share of p-values in the outermost hundredth; NaN does not count."""
    known = p_value.values[np.isfinite(p_value.values)]
    return np.mean((known < EXTREME) | (known > 1 - EXTREME))


print("Share of extreme p-values; 1 % if calibrated")
for name in STATISTICS:
    shares = [extreme_share(checks[name]["p_value"]) for checks in (left_out, in_training)]
    print(f"  {name:<14} left out {shares[0]:.1%}, in training {shares[1]:.1%}")

table = pd.concat({name: check["p_value"].to_series() for name, check in left_out.items()}, axis=1)
table.to_csv("predictive_checks.csv")
is_extreme = (table < EXTREME) | (table > 1 - EXTREME)
known = table.notna()
print("\nLeft out: share of extreme p-values by knock-out, the five largest and the median")
by_label = is_extreme.groupby("perturbation").sum().sum(axis=1) / known.groupby("perturbation").sum().sum(axis=1)
by_label = by_label.sort_values(ascending=False)
print(by_label.head(5).map("{:.1%}".format).to_string(), f"\nmedian {by_label.median():.1%}")

trained = in_training["mean"]["p_value"].to_series()
trained = trained[(trained < EXTREME) | (trained > 1 - EXTREME)].groupby("perturbation").size().sort_values()
print(f"\nIn training: extreme means by knock-out, of {trained.sum()}")
print(trained.iloc[:-4:-1].to_string())

# Choose two genes. One has replicates furthest from the observed value, in standard deviations over all days and
# statistics, and is not the knocked-out gene. The other has typical p-values in the same cells, and is neither on nor
# off in nearly all of them.
scores = {}
for name, check in left_out.items():
    off = abs(check["observed"] - check["replicated"].mean("draw")) / (check["replicated"].std("draw") + 1e-9)
    scores[name] = off.to_series()
distance = pd.concat(scores, axis=1).mean(axis=1).groupby(["perturbation", "gene"]).mean()
itself = distance.index.get_level_values("gene") == distance.index.get_level_values("perturbation")
distance = distance[~itself].sort_values(ascending=False)
print("\nLeft out: genes furthest from the replicates, in standard deviations, and number of extreme p-values")
often = is_extreme.groupby(["perturbation", "gene"]).sum().sum(axis=1)
print(pd.DataFrame({"distance": distance.round(1), "extreme": often}).loc[distance.index[:6]].to_string())
label, worst = distance.index[0]
day = abs(table.xs((label, worst), level=("perturbation", "gene")) - 0.5).sum(axis=1).idxmax()
zeros = left_out["zero_fraction"]["observed"].sel(perturbation=label, context=day).to_series()
there = table.loc[label, day]
good = abs(there[zeros.between(0.1, 0.9)] - 0.5).max(axis=1).idxmin()
print(f"\nKnock-out of {label}, day {day}: {good} fits, {worst} does not")
print(there.loc[[good, worst]].round(3).to_string())

# The observed shift of that gene under each knock-out: is there a similar one in training?
moments = whole.control_moments()["mean"].sel(gene=worst, context=day)
shift = in_training["mean"]["observed"].sel(gene=worst, context=day) - moments
print(f"\nShift of the mean of {worst} on day {day}, by knock-out: lowest and highest three")
print(shift.to_series().sort_values().iloc[[0, 1, 2, -3, -2, -1]].round(2).to_string())

prior = whole.prior_predictive(label, num_draws=num_draws, progress_bar=False)
figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for row, gene in zip(axes, [good, worst], strict=True):
    for ax, name in zip(row, STATISTICS, strict=False):
        before = distpert.predictive_check(prior, adata, name, genes=gene)
        plot_predictive_check(
            left_out[name], prior=before, perturbation=label, context=day, gene=gene, ax=ax
        ).set_title(gene)
figure.suptitle(f"Knock-out of {label} on day {day}, left out: replicates and observed cells")
figure.savefig("predictive_checks.png", dpi=150)

figure, axes = plt.subplots(2, 5, figsize=(12.5, 4.6), sharex=True, sharey=True, layout="constrained")
for row, checks, what in zip(axes, (left_out, in_training), ("left out", "in training"), strict=True):
    for ax, (name, check) in zip(row, checks.items(), strict=True):
        known = check["p_value"].values[np.isfinite(check["p_value"].values)]
        ax.hist(known, np.linspace(0, 1, 21), density=True, color="#0072B2", alpha=0.75)
        ax.axhline(1, color="#555555", ls="--", lw=1)
        ax.set_title(f"{name.replace('_', ' ')}, {what}", fontsize="large")
    row[0].set_ylabel("density")
for ax in axes[1]:
    ax.set_xlabel("predictive p-value")
figure.savefig("predictive_checks_p_values.png", dpi=150)
print("\nWrote predictive_checks.csv, predictive_checks.png and predictive_checks_p_values.png")
