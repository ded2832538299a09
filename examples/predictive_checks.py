"""Posterior predictive checks on a real screen: where the model fits, and where it visibly does not.

The screen is RENGE (Ishikawa et al. 2023), as in quickstart.py. Five knock-outs are left out of training. What as many
cells as were measured would show is drawn from the posterior, and from the prior, and compared with what they do show.

Writes predictive_checks.csv (p-values of the groups and genes left out), predictive_checks.png (two genes, three
statistics) and predictive_checks_p_values.png into the working directory.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import distpert
from distpert.plots import plot_predictive_check

LEFT_OUT = ["NANOG", "RUNX1T1", "SOX2", "TRIM25", "ZIC2"]
STATISTICS = ["zero_fraction", "variance", "skewness", "bimodality"]
EXTREME = 0.005  # two-sided .01: of calibrated p-values, one in a hundred is further out
num_draws = 200 if os.environ.get("DISTPERT_QUICK") else 400

adata = distpert.datasets.renge()
is_left_out = adata.obs["perturbation"].isin(LEFT_OUT).to_numpy()
training, held_out = adata[~is_left_out].copy(), adata[is_left_out].copy()
fit = distpert.fit(training, "embeddings", context_key="day")
print(fit, "\n")

unseen = fit.predict(LEFT_OUT, num_draws=num_draws)
seen = fit.predict(fit.perturbations, num_draws=num_draws)
prior = fit.prior_predictive(LEFT_OUT, num_draws=num_draws)
left_out = {name: distpert.predictive_check(unseen, held_out, name) for name in STATISTICS}
in_training = {name: distpert.predictive_check(seen, training, name) for name in STATISTICS}


def extreme_share(p_value):
    """Share of p-values in the outermost hundredth, of those that there are."""
    known = p_value.values[np.isfinite(p_value.values)]
    return np.mean((known < EXTREME) | (known > 1 - EXTREME))


print("Share of p-values that are extreme; 1 % if calibrated")
for name in STATISTICS:
    shares = [extreme_share(checks[name]["p_value"]) for checks in (left_out, in_training)]
    print(f"  {name:<14} left out {shares[0]:.1%}, in training {shares[1]:.1%}")

# Which genes are extreme in how many of the groups that were left out, and which knock-outs they are in.
table = pd.concat({name: check["p_value"].to_series() for name, check in left_out.items()}, axis=1)
table.to_csv("predictive_checks.csv")
is_extreme = (table < EXTREME) | (table > 1 - EXTREME)
by_gene = is_extreme.sum(axis=1).groupby("gene").sum().sort_values(ascending=False)
n_groups = len(LEFT_OUT) * len(fit.contexts)
print(f"\nLeft out: how often a gene is extreme, in {len(STATISTICS)} statistics of {n_groups} groups")
print(by_gene.head(5).to_string())
print("\nLeft out: genes and days that are extreme in a statistic, by knock-out")
print(is_extreme.any(axis=1).groupby("perturbation").sum().to_string())

# The gene that is extreme most often, in the group where it is furthest out; and there, one that is as it should be,
# of those that are neither on nor off in nearly all cells.
worst = by_gene.index[0]
label, day = abs(table.xs(worst, level="gene") - 0.5).sum(axis=1).idxmax()
zeros = left_out["zero_fraction"]["observed"].sel(perturbation=label, context=day).to_series()
there = table.loc[label, day]
good = abs(there[zeros.between(0.1, 0.9)] - 0.5).max(axis=1).idxmin()
print(f"\nKnock-out of {label}, day {day}: {good} fits, {worst} does not")
print(there.loc[[good, worst]].round(3).to_string())

figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for row, gene in zip(axes, [good, worst], strict=True):
    for ax, name in zip(row, STATISTICS, strict=False):
        before = distpert.predictive_check(prior, held_out, name, genes=gene)
        plot_predictive_check(left_out[name], prior=before, perturbation=label, context=day, gene=gene, ax=ax)
figure.suptitle(f"Knock-out of {label} on day {day}: replicates of its cells, without having seen any")
figure.savefig("predictive_checks.png", dpi=150)

figure, axes = plt.subplots(2, 4, figsize=(11, 4.6), sharex=True, sharey=True, layout="constrained")
for row, checks, what in zip(axes, (left_out, in_training), ("left out", "in training"), strict=True):
    for ax, (name, check) in zip(row, checks.items(), strict=True):
        known = check["p_value"].values[np.isfinite(check["p_value"].values)]
        ax.hist(known, np.linspace(0, 1, 21), density=True, color="#0072B2", alpha=0.75)
        ax.axhline(1, color="#555555", ls="--", lw=1)
        ax.set_title(f"{name.replace('_', ' ')}, {what}", fontsize="medium")
    row[0].set_ylabel("density")
for ax in axes[1]:
    ax.set_xlabel("predictive p-value")
figure.savefig("predictive_checks_p_values.png", dpi=150)
print("\nWrote predictive_checks.csv, predictive_checks.png and predictive_checks_p_values.png")
