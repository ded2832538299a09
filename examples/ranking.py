"""Which gene should be perturbed next? Genes ranked by their predicted effect, and by what is wanted.

The screen is RENGE (Ishikawa et al. 2023), as in quickstart.py: 23 knock-outs in human stem cells, with 103 genes
measured on days 2 to 5 after infection. What is known about genes comes with distpert.

The script holds out each fifth of the knock-outs in turn, ranks them, and compares with what they did. It then ranks
all measured genes with a fit to all knock-outs, and writes ranking.csv and ranking.png to the working directory.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import distpert
from distpert.plots import plot_ranking

quick = bool(os.environ.get("DISTPERT_QUICK"))
DAY = "5"

adata = distpert.datasets.renge()
known = distpert.datasets.gene_embeddings()
histograms = distpert.count_histograms(adata, context_key="day")

# Held-out knock-outs: the predicted effect, and the effect that a fit to their own cells finds.
fit = distpert.fit(histograms, known, progress_bar=False)
seen = fit.rank(fit.perturbations, context=DAY, progress_bar=False).to_dataframe()["effect"]
predicted = []
folds = distpert.split_perturbations(fit.perturbations, n_folds=5).folds
for fold in folds[:1] if quick else folds:
    held_out = sorted(fold.held_out)
    without = distpert.fit(histograms.drop(held_out), known, progress_bar=False)
    predicted.append(without.rank(held_out, context=DAY, progress_bar=False).to_dataframe())
predicted = pd.concat(predicted).join(seen.rename("with its cells"))
print("Knock-outs that were held out: predicted effect, and the effect with their own cells")
columns = ["effect", "effect_lower", "effect_upper", "with its cells", "told"]
print(predicted[columns].sort_values("with its cells", ascending=False).round(3).to_string())
inside = predicted["with its cells"].between(predicted["effect_lower"], predicted["effect_upper"]).mean()
correlation = spearmanr(predicted["effect"], predicted["with its cells"]).statistic
print(f"\nRank correlation {correlation:.2f}; {inside:.0%} of the effects are in their 90 % intervals")

# The measured genes are those of interest in these cells, so they are the candidates.
candidates = [gene for gene in fit.genes if fit.embeddings.has(gene)]
ranking = fit.rank(candidates, context=DAY, top=10, progress_bar=False)
print(f"\n{ranking}")
ranking.to_dataframe().to_csv("ranking.csv")
wanted = fit.rank(candidates, target="NANOG", context=DAY, top=10, progress_bar=False)

figure, axes = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
plot_ranking(ranking, ax=axes[0])
axes[0].set_title("largest effect")
plot_ranking(wanted, ax=axes[1])
axes[1].set_title("most like the knock-out of NANOG")
figure.savefig("ranking.png", dpi=150)
unseen = ranking.to_dataframe().query("not seen")
ratio = np.median(unseen["effect_upper"] / unseen["effect_lower"])
print(f"\n{len(unseen)} candidates are not in training. Their intervals end {ratio:.0f} times as high as they start")
