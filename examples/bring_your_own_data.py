"""Bring your own data: from 10x counts, guide calls and a file of embeddings to predictions.

The script first writes files like yours into the folder byod/: a 10x count matrix, Cell Ranger's table of guide calls,
and a CSV of gene embeddings. It then reads them and continues as you would with your own files.

It writes predictions.csv, bring_your_own_data.png and fit.nc to the working directory.
"""

import gzip
import os
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.io
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

import distpert
from distpert.plots import plot_histogram

folder = Path("byod")  # the folder with your files

QUICK = bool(os.environ.get("DISTPERT_QUICK"))


def write_files(folder: Path) -> None:
    """Write a real screen as raw files, in place of your own.

    Knock-outs, cells and the counts of 103 genes come from RENGE (Ishikawa et al. 2023), with days 4 and 5 as two
    libraries, A and B. Everything that the publication lacks is simulated: unequal sequencing depth, the rest of the
    transcriptome (genes SIM1 to SIM120), names of guides, and cells with no guide or with two.
    """
    rng = np.random.default_rng(0)
    screen = distpert.datasets.renge()
    screen = screen[screen.obs["day"].isin(["5"] if QUICK else ["4", "5"])]
    depth = np.clip(rng.lognormal(np.log(0.5), 0.3, screen.n_obs), 0.1, 1)
    genes = screen.layers["counts"].tocoo()
    genes.data = rng.binomial(genes.data, depth[genes.row])
    rates = rng.lognormal(0, 2, 120)
    rest = rng.poisson(np.outer(depth, 9_800 * rates / rates.sum()))
    counts = hstack([genes, csr_matrix(rest)], format="csr", dtype=np.int32)
    counts.eliminate_zeros()

    barcodes = ["".join(rng.choice(list("ACGT"), 16)) + "-" + {"4": "1", "5": "2"}[day] for day in screen.obs["day"]]
    target = screen.obs["perturbation"].astype(str).replace("control", "NT").to_numpy()
    guides = np.array(
        [f"{name}_{number}" for name, number in zip(target, rng.integers(1, 4, len(target)), strict=True)]
    )
    second = rng.permutation(guides)
    has_two, has_none = rng.random((2, len(guides))) < [[0.04], [0.06]]
    calls = pd.DataFrame(
        {
            "cell_barcode": barcodes,
            "num_features": 1 + has_two,
            "feature_call": [f"{a}|{b}" if two else a for a, b, two in zip(guides, second, has_two, strict=True)],
        }
    )
    symbols = [*screen.var_names, *(f"SIM{i + 1}" for i in range(len(rates)))]

    folder.mkdir(exist_ok=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb", compresslevel=1) as file:
        scipy.io.mmwrite(file, counts.T.tocoo())  # 10x: genes × cells
    features = pd.DataFrame({"id": symbols, "symbol": symbols, "type": "Gene Expression"})
    features.to_csv(folder / "features.tsv.gz", sep="\t", header=False, index=False)
    pd.Series(barcodes).to_csv(folder / "barcodes.tsv.gz", header=False, index=False)
    calls[~has_none].to_csv(folder / "protospacer_calls_per_cell.csv", index=False)
    screen.uns["embeddings"].rename({"POU5F1": "OCT4"}).to_csv(folder / "embeddings.csv", float_format="%.5f")


write_files(folder)

# 1. Read the counts.
matrix = scipy.io.mmread(folder / "matrix.mtx.gz").T.tocsr()  # cells × genes
features = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None, keep_default_na=False)
barcodes = pd.read_csv(folder / "barcodes.tsv.gz", header=None)[0]
adata = anndata.AnnData(
    matrix, obs=pd.DataFrame(index=barcodes.to_numpy()), var=pd.DataFrame(index=features[1].to_numpy())
)
adata.var_names_make_unique()
totals = np.asarray(matrix.sum(axis=1)).ravel()
print(f"Read {adata.n_obs:,} cells × {adata.n_vars} genes, {totals.min():,} to {totals.max():,} counts per cell")

# 2. Label the cells.
calls = pd.read_csv(folder / "protospacer_calls_per_cell.csv", index_col="cell_barcode").reindex(adata.obs_names)
has_none, has_many = calls["num_features"].isna(), calls["num_features"] > 1
print(f"Leaving out {has_none.sum():,} cells without a guide and {has_many.sum():,} with more than one")
is_single = ~(has_none | has_many)
adata, calls = adata[is_single].copy(), calls[is_single]
adata.obs["target"] = calls["feature_call"].str.rsplit("_", n=1).str[0].replace("NT", "non-targeting")
adata.obs["library"] = adata.obs_names.str.split("-").str[1].map({"1": "A", "2": "B"})  # cells of day 4, of day 5
print(adata.obs["target"].value_counts().to_string(), "\n")

# 3. Normalize, and keep genes with counts in more than 5 % of the cells.
if "counts" not in adata.layers:
    adata.layers["counts"] = adata.X.copy()
counts = adata.layers["counts"]
totals = np.asarray(counts.sum(axis=1)).reshape(-1, 1)
adata.X = counts.multiply(1e4 / totals).tocsr().log1p().astype(np.float32)
adata = adata[:, counts.getnnz(axis=0) > 0.05 * adata.n_obs].copy()

# 4. Read the embeddings, and check that they cover the perturbed genes.
embeddings = distpert.read_embeddings(folder / "embeddings.csv")
targets = sorted(set(adata.obs["target"]) - {"non-targeting"})
print("Perturbed genes without an embedding:", [gene for gene in targets if gene not in embeddings.index])
# The file has an alias.
embeddings = distpert.read_embeddings(folder / "embeddings.csv", rename={"OCT4": "POU5F1"})
print("After renaming OCT4:", [gene for gene in targets if gene not in embeddings.index], "\n")

# 5. Fit, and predict an unseen knock-out and a pair.
keys = {"perturbation_key": "target", "control": "non-targeting", "context_key": "library"}
fit = distpert.fit(adata, embeddings, **keys)
print(fit, "\n")
prediction = fit.predict(["SALL4", "NANOG+SOX2"], context="B")
print(prediction)

# 6. A table: predicted moments of every gene, and the moments of the control cells.
summary = prediction.summary(ci_prob=0.9).to_dataframe()[["mean", "variance", "skewness", "kurtosis"]]
table = summary.unstack("statistic").droplevel("context")
table.columns = [f"{moment} {statistic}" for moment, statistic in table.columns]
control = fit.control_moments().sel(context="B").to_dataframe().drop(columns="context")
table = table.join(control.add_suffix(" control"), on="gene")
table.to_csv("predictions.csv", float_format="%.4f")
variance = table["variance control"].where(lambda value: value > 0)  # a gene that no control cell expresses has 0
shift = (table["mean median"] - table["mean control"]).abs() / variance**0.5
largest = {label: shift[label].nlargest(3).index.tolist() for label in prediction.perturbations}
columns = ["mean control", "mean median", "mean lower", "mean upper"]
for label, genes in largest.items():
    print(f"\n{label}: genes with the largest shift of the mean, with 90 % intervals")
    print(table.loc[label].loc[genes, columns].round(3).to_string())

# A picture.
figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for row, (label, genes) in zip(axes, largest.items(), strict=True):
    for ax, gene in zip(row, genes, strict=True):
        plot_histogram(prediction, label, gene, ax=ax).get_legend().remove()
        ax.set_ylim(0, 1.05 * ax.dataLim.ymax)  # no room for legends, as one below serves all panels
        ax.set_title(f"{gene}, {label} perturbed", fontsize="medium")
figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
figure.savefig("bring_your_own_data.png", dpi=150)

# Keep the fit.
fit.save("fit.nc")
again = distpert.load("fit.nc").predict(["SALL4", "NANOG+SOX2"], context="B")
print("\nThe loaded fit predicts the same:", again.histogram().equals(prediction.histogram()))

# Embeddings of your own descriptions.
DESCRIPTIONS = {
    "ETS2": "ETS family transcription factor, target of MAP kinase signaling, needed in trophoblast development",
    "ETV4": "ETS family transcription factor of the PEA3 group, activated by FGF signaling, branching of organs",
    "FOXH1": "forkhead transcription factor, partner of SMAD2 and SMAD4 in Nodal and activin signaling, mesendoderm",
    "ID1": "helix-loop-helix protein that does not bind DNA and inhibits E proteins, induced by BMP signaling",
    "JARID2": "Jumonji protein without demethylase activity that recruits Polycomb repressive complex 2 to chromatin",
    "LIN28A": "RNA-binding protein of pluripotent stem cells that blocks the maturation of let-7 microRNA",
    "MYC": "basic helix-loop-helix leucine zipper factor, binds E boxes with MAX, drives growth",
    "MYCN": "basic helix-loop-helix leucine zipper factor of the MYC family, binds with MAX, embryonic nervous system",
    "NANOG": "homeobox transcription factor of the core pluripotency network with OCT4 and SOX2",
    "NR5A2": "orphan nuclear receptor, liver receptor homolog 1, cholesterol and bile acid metabolism, early embryo",
    "PDLIM1": "PDZ and LIM domain protein that binds alpha-actinin, actin cytoskeleton and stress fibers",
    "POU5F1": "POU homeobox transcription factor OCT4, core pluripotency network with SOX2 and NANOG",
    "PRDM14": "PR domain zinc finger protein, pluripotency and primordial germ cells, represses FGF signaling",
    "RUNX1T1": "transcriptional corepressor ETO that recruits histone deacetylases, fused to RUNX1 in leukemia",
    "SALL4": "spalt-like C2H2 zinc finger transcription factor, pluripotency of embryonic stem cells, binds NuRD",
    "SOX2": "SRY-box HMG transcription factor, core pluripotency network with OCT4, neural progenitors",
    "TRIM24": "tripartite motif E3 ubiquitin ligase, reads histone H3, co-regulator of nuclear receptors and of p53",
    "TRIM25": "tripartite motif E3 ubiquitin ligase, activates RIG-I in antiviral immunity, induced by interferon",
    "VENTX": "homeobox transcription factor of the Vent family, BMP signaling, myeloid differentiation",
    "ZIC2": "C2H2 zinc finger transcription factor of the ZIC family, forebrain development, holoprosencephaly",
    "ZIC3": "C2H2 zinc finger transcription factor of the ZIC family, left-right asymmetry, pluripotency",
    "ZNF398": "KRAB C2H2 zinc finger protein, TGF-beta and SMAD3 signaling in human pluripotent stem cells",
    "ZNF649": "KRAB C2H2 zinc finger protein, transcriptional repressor of MAP kinase signaling",
    "ZNF90": "KRAB C2H2 zinc finger protein, predicted transcriptional repressor",
}


class WordCounts:
    """An encoder that needs no download: weighted word counts, projected to 16 dimensions."""

    def __init__(self, texts: list[str]) -> None:
        self.pipeline = make_pipeline(TfidfVectorizer(), TruncatedSVD(16, random_state=0)).fit(texts)

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.pipeline.transform(texts)


# A real encoder: "sentence-transformers/all-MiniLM-L6-v2", or a SentenceTransformer that you loaded.
encoder = WordCounts(list(DESCRIPTIONS.values()))
text = distpert.embed_text(DESCRIPTIONS, encoder)
fit_text = distpert.fit(adata, text, **keys)
prediction_text = fit_text.predict("SALL4", context="B")
means = [one.summary()["mean"].sel(perturbation="SALL4", statistic="median") for one in (prediction, prediction_text)]
print(
    "\nR² of the responses of genes that are left out: "
    f"{fit.left_out_r2()['single genes']:.0%} with the embeddings of the file, "
    f"{fit_text.left_out_r2()['single genes']:.0%} with the texts."
    f"\nThe predicted means under SALL4 differ by {float(abs(means[0] - means[1]).mean()):.3f} on average over genes."
)
print("\nWrote predictions.csv, bring_your_own_data.png and fit.nc")
