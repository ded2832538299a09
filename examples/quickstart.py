"""Fit a real screen, predict a knock-out that was left out of it, and compare with its cells.

The screen is RENGE (Ishikawa et al. 2023): 23 transcription factors knocked out in human induced pluripotent stem
cells, measured on days 2 to 5. The knock-out of NANOG is left out of training; the model knows NANOG only by the
embedding of its description.

Writes quickstart.csv (moments with intervals beside what the cells show) and quickstart.png into the working directory.
"""

import os

import matplotlib.pyplot as plt
import pandas as pd

import distpert
from distpert.plots import plot_histogram

LEFT_OUT, DAY = "NANOG", "5"
num_draws = 100 if os.environ.get("DISTPERT_QUICK") else 400

adata = distpert.datasets.renge()
is_left_out = adata.obs["perturbation"] == LEFT_OUT
training, held_out = adata[~is_left_out].copy(), adata[is_left_out].copy()

fit = distpert.fit(training, "embeddings", context_key="day")
print(fit, "\n")

prediction = fit.predict(LEFT_OUT, context=DAY, num_draws=num_draws)
print(prediction, "\n")

# What as many cells as were measured should show, beside what they do show.
tree = prediction.to_datatree(held_out)
observed = tree["observed_data"].to_dataset()
n_cells = int(tree["constant_data"]["n_cells"].squeeze())
summary = prediction.summary(ci_prob=0.9, n_cells=n_cells)

# The genes whose mean is predicted to move most, and the target itself.
control = fit.control_moments().sel(context=DAY)
shift = abs(summary["mean"].sel(statistic="median").squeeze() - control["mean"]) / control["variance"] ** 0.5
genes = [LEFT_OUT, *shift.drop_sel(gene=LEFT_OUT).sortby(shift, ascending=False)["gene"].to_numpy()[:5]]

rows = []
for gene in genes:
    for moment in summary:
        median, lower, upper = summary[moment].sel(gene=gene).squeeze().to_numpy()
        value = float(observed[moment].sel(gene=gene).squeeze())
        rows.append(
            {
                "gene": gene,
                "moment": moment,
                "control": float(control[moment].sel(gene=gene)),
                "predicted": median,
                "lower 5%": lower,
                "upper 95%": upper,
                "observed": value,
                "inside": lower <= value <= upper,
            }
        )
table = pd.DataFrame(rows).set_index(["gene", "moment"])
print(f"Knock-out of {LEFT_OUT}, never seen, day {DAY}: what {n_cells} cells should show, and what they do")
print(table.round(3).to_string())
table.to_csv("quickstart.csv")

inside = [
    ((summary[m].sel(statistic="lower") <= observed[m]) & (observed[m] <= summary[m].sel(statistic="upper"))).mean()
    for m in summary
]
shares = ", ".join(f"{float(share):.0%} ({moment})" for share, moment in zip(inside, summary, strict=True))
print(f"\nOf all {len(fit.genes)} genes, so many lie inside their 90 % interval: {shares}")

figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for ax, gene in zip(axes.flat, genes, strict=True):
    plot_histogram(prediction, LEFT_OUT, gene, observed=held_out, ax=ax).get_legend().remove()
    ax.set_title(gene)
    ax.set_ylim(0, 1.05 * ax.dataLim.ymax)  # one legend below for all, instead
figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
figure.suptitle(f"Knock-out of {LEFT_OUT} on day {DAY}, predicted without any of its cells")
figure.savefig("quickstart.png", dpi=150)
print("\nWrote quickstart.csv and quickstart.png")
