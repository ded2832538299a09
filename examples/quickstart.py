"""Fit a real screen, predict a held-out knock-out, and compare the prediction with its cells.

The screen is RENGE (Ishikawa et al. 2023): 23 transcription factors knocked out in human induced pluripotent stem
cells, measured on days 2 to 5. The knock-out of NANOG is held out. The model knows NANOG only by its embeddings: what
texts, papers and databases say about the gene.

The script writes quickstart.csv (predicted and observed moments, with intervals) and quickstart.png to the working
directory.
"""

import os

import matplotlib.pyplot as plt
import pandas as pd

import distpert
from distpert.plots import plot_histogram

HELD_OUT, DAY = "NANOG", "5"
num_draws = 100 if os.environ.get("DISTPERT_QUICK") else 400

adata = distpert.datasets.renge()
is_held_out = adata.obs["perturbation"] == HELD_OUT
training, held_out = adata[~is_held_out].copy(), adata[is_held_out].copy()

fit = distpert.fit(training, distpert.datasets.gene_embeddings(), context_key="day")
print(fit, "\n")

prediction = fit.predict(HELD_OUT, context=DAY, num_draws=num_draws)
print(prediction, "\n")

# Predicted moments of as many cells as were observed, and the observed moments.
tree = prediction.to_datatree(held_out)
observed = tree["observed_data"].to_dataset()
n_cells = int(tree["constant_data"]["n_cells"].squeeze())
summary = prediction.summary(ci_prob=0.9, n_cells=n_cells)

# The target itself, and the genes with the largest predicted shift of the mean.
control = fit.control_moments().sel(context=DAY)
shift = abs(summary["mean"].sel(statistic="median").squeeze() - control["mean"]) / control["variance"] ** 0.5
genes = [HELD_OUT, *shift.drop_sel(gene=HELD_OUT).sortby(shift, ascending=False)["gene"].to_numpy()[:5]]

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
print(f"Knock-out of {HELD_OUT}, unseen, day {DAY}: predicted and observed moments of {n_cells} cells")
print(table.round(3).to_string())
table.to_csv("quickstart.csv")

inside = [
    ((summary[m].sel(statistic="lower") <= observed[m]) & (observed[m] <= summary[m].sel(statistic="upper"))).mean()
    for m in summary
]
shares = ", ".join(f"{float(share):.0%} ({moment})" for share, moment in zip(inside, summary, strict=True))
print(f"\nShare of all {len(fit.genes)} genes inside their 90 % interval: {shares}")

figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for ax, gene in zip(axes.flat, genes, strict=True):
    plot_histogram(prediction, HELD_OUT, gene, observed=held_out, ax=ax).get_legend().remove()
    ax.set_title(gene)
    ax.set_ylim(0, 1.05 * ax.dataLim.ymax)  # no room for legends, as one below serves all panels
figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
figure.suptitle(f"Knock-out of {HELD_OUT} on day {DAY}, predicted without any of its cells")
figure.savefig("quickstart.png", dpi=150)
print("\nWrote quickstart.csv and quickstart.png")
