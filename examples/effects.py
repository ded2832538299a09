"""Which genes does each knock-out change, in mean and in variance, and how sure is it?

The screen is RENGE (Ishikawa et al. 2023), as in quickstart.py: 23 knock-outs, days 2 to 5 after infection. Shifts are
from the control cells of day 5.

The script writes effects.csv (every knock-out, gene and moment) and effects.png (genes called for each knock-out, and
two volcano plots) to the working directory.
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import distpert
from distpert.plots import plot_effects

quick = bool(os.environ.get("DISTPERT_QUICK"))
SHOWN = "PRDM14"

adata = distpert.datasets.renge()
fit = distpert.fit(adata, "embeddings", context_key="day", progress_bar=False)
prediction = fit.predict(fit.perturbations, context="5", num_draws=200 if quick else 1000, progress_bar=False)
# A shift of a tenth of the control's standard deviation or less counts as none in practice.
effects = prediction.effects(rope=0.1).isel(context=0, drop=True)

table = effects.to_dataframe().reset_index()
table.to_csv("effects.csv", index=False)
called = effects["lfsr"] < 0.05
counts = called.sum("gene").to_dataframe().unstack("moment")["lfsr"][["mean", "variance"]]
counts["does nothing"] = fit.prob_inactive.round(3)
print("Genes called at a local false sign rate of .05, and the probability that the knock-out does nothing")
print(counts.sort_values("mean", ascending=False).to_string())

rates = effects["lfsr"].where(called)
print("\nExpected wrong signs among all calls, and their number")
for moment in ("mean", "variance"):
    print(f"  {moment:<9}{float(rates.sel(moment=moment).sum()):6.1f} of {int(called.sel(moment=moment).sum())}")
practical = called.sel(moment="mean") & (effects["prob_rope"].sel(moment="mean") < 0.05)
print(f"  of the calls of the mean, {int(practical.sum())} are more than a tenth of a standard deviation, with 95 %")

both = called.sel(moment="mean") & called.sel(moment="variance")
alone = called.sel(moment="variance") & ~called.sel(moment="mean")
print(f"\nVariance called with the mean: {int(both.sum())} cases; without the mean: {int(alone.sum())}")


one = effects.sel(perturbation=SHOWN, moment="mean").to_dataframe().sort_values("lfsr")
print(f"\n{SHOWN} knock-out: the ten genes with the largest log2 fold changes among those called")
largest = one[one["lfsr"] < 0.05].sort_values("log2_fold_change", key=abs, ascending=False).head(10)
columns = ["shift", "lower", "upper", "lfsr", "s_value", "log2_fold_change"]
print(largest[columns].round(3).to_string())

figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained", width_ratios=[1, 1.1, 1.1])
ordered = counts.sort_values("mean")
places = np.arange(len(ordered))
axes[0].barh(places + 0.2, ordered["mean"], height=0.4, color="#0072B2", label="mean")
axes[0].barh(places - 0.2, ordered["variance"], height=0.4, color="#D55E00", label="variance")
axes[0].set_yticks(places, ordered.index, fontsize="small")
axes[0].set(xlabel="genes called on day 5 (of 103)", title="local false sign rate below .05")
axes[0].legend(frameon=False, loc="lower right")
plot_effects(effects, "mean", perturbation=SHOWN, ax=axes[1])
plot_effects(effects, "variance", perturbation=SHOWN, ax=axes[2])
figure.savefig("effects.png", dpi=150)
