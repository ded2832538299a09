"""What is called where nothing happens: relabeled controls, alone and mixed with real perturbations.

    python validation/inference/null_screens.py --data papalexi.h5ad --embeddings embeddings.npz --out null

Controls get the labels of 12 genes that were not perturbed. In a null screen they are all there is. In a mixed screen,
real perturbations with as many cells stand beside them; the rest of their cells tells the sign of clear effects. The
output folder gets null.csv and mixed.csv, with a t-test and a rank test at the same false discovery rate.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse, stats
from tqdm import tqdm

import distpert
from distpert.histograms.moments import MOMENTS

N_LABELS, LFSR, CLEAR = 12, 0.05, 2.0  # an effect is clear at this many standard errors in the cells held back


def main(argv: Sequence[str] | None = None) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from screens import BUNDLED, EMBEDDINGS_HELP, open_embeddings, open_screen

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="an h5ad that screens.py recognizes")
    parser.add_argument("--embeddings", nargs="+", default=[BUNDLED], help=EMBEDDINGS_HELP)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--cells", type=int, default=80, help="cells of each label")
    parser.add_argument("--screens", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    adata, keys = open_screen(arguments.data, context_key=None)
    embeddings = open_embeddings(arguments.embeddings)
    known = list(embeddings.genes)
    null, mixed = [], []
    for seed in tqdm(range(arguments.screens), desc="screens"):
        rng = np.random.default_rng(seed)
        null.append({"screen": seed} | null_screen(adata, known, embeddings, keys, arguments, rng))
        mixed += [{"screen": seed} | row for row in mixed_screen(adata, known, embeddings, keys, arguments, rng)]
        pd.DataFrame(null).to_csv(arguments.out / "null.csv", index=False)
        pd.DataFrame(mixed).to_csv(arguments.out / "mixed.csv", index=False)
    print(pd.DataFrame(null).round(3).to_string(index=False))
    print(pd.DataFrame(mixed).round(3).to_string(index=False))


def relabel(adata: ad.AnnData, known: Sequence[str], n_cells: int, rng: np.random.Generator) -> tuple[list, list]:
    """Labels of all cells, in which some controls have those of other genes; and these genes."""
    labels = adata.obs["perturbation"].astype(str).to_numpy().copy()
    others = sorted(set(known) - set(labels))
    names = [str(name) for name in rng.choice(others, N_LABELS, replace=False)]
    controls = rng.permutation(np.flatnonzero(labels == "control"))
    n_cells = min(n_cells, len(controls) // (N_LABELS + 4))
    for i, name in enumerate(names):
        labels[controls[i * n_cells : (i + 1) * n_cells]] = name
    return labels, names


def null_screen(adata, known, embeddings, keys, arguments, rng) -> dict[str, float]:
    """Intervals that hold the control's moments, and calls, in a screen without effects."""
    labels, names = relabel(adata, known, arguments.cells, rng)
    chosen = np.isin(labels, ["control", *names])
    screen = adata[chosen].copy()
    screen.obs["perturbation"] = pd.Categorical(labels[chosen])
    fit = distpert.fit(screen, embeddings, progress_bar=False, **keys)
    effects = fit.predict(names, num_draws=arguments.draws, progress_bar=False).effects()
    moving = ~np.isin(fit.genes, fit.histograms.constant_genes)
    row = {}
    for moment in MOMENTS:
        one = effects.sel(moment=moment).isel(gene=moving)
        row[f"hold 0, {moment}"] = float(((one["lower"] <= 0) & (one["upper"] >= 0)).mean())
        row[f"called, {moment}"] = float((one["lfsr"] < LFSR).mean())
    return row


def mixed_screen(adata, known, embeddings, keys, arguments, rng) -> list[dict[str, float]]:
    """Calls of distpert and of tests in a screen where half of the perturbations do nothing."""
    labels, names = relabel(adata, known, arguments.cells, rng)
    n_cells = int((labels == names[0]).sum())
    real = [name for name in adata.obs["perturbation"].astype(str).unique() if name != "control" and name in set(known)]
    real = [str(name) for name in rng.permutation(real) if (labels == name).sum() >= 2 * n_cells][:N_LABELS]
    training, held_back = np.isin(labels, ["control", *names]), np.zeros(len(labels), bool)
    for name in real:
        cells = rng.permutation(np.flatnonzero(labels == name))
        training[cells[:n_cells]], held_back[cells[n_cells:]] = True, True
    screen = adata[training].copy()
    screen.obs["perturbation"] = pd.Categorical(labels[training])
    values = {name: dense(adata[training & (labels == name)]) for name in ["control", *names, *real]}
    every_control = dense(adata[(adata.obs["perturbation"] == "control").to_numpy()])
    clear = np.stack([standardized(dense(adata[held_back & (labels == name)]), every_control) for name in real])

    fit = distpert.fit(screen, embeddings, progress_bar=False, **keys)
    effects = fit.predict([*names, *real], num_draws=arguments.draws, progress_bar=False).effects()
    mean = effects.sel(moment="mean", perturbation=[*names, *real])
    shift = mean["shift"].to_numpy()
    rows = []
    for what in ("lfsr", "s_value"):
        called = (mean[what] < LFSR).to_numpy()
        rows.append(count(f"distpert, {what} < {LFSR}", called, shift, clear) | {
            "expected share of wrong signs": float(mean["lfsr"].to_numpy()[called].mean()) if called.any() else 0.0
        })  # fmt: skip
    difference = np.stack([values[name].mean(axis=0) - values["control"].mean(axis=0) for name in [*names, *real]])
    moving = np.stack([values[name].std(axis=0) > 0 for name in [*names, *real]]) & (values["control"].std(axis=0) > 0)
    for what, test in (("t-test", welch), ("rank test", ranks)):
        p_values = np.stack([test(values[name], values["control"]) for name in [*names, *real]])
        p_values = np.where(moving, np.nan_to_num(p_values, nan=1.0), 1.0)
        called = stats.false_discovery_control(p_values.ravel()).reshape(p_values.shape) < LFSR
        rows.append(count(f"{what}, FDR {LFSR}", called, difference, clear))
    return rows


def count(method: str, called: np.ndarray, shift: np.ndarray, clear: np.ndarray) -> dict[str, object]:
    """Calls among labels that do nothing and among real ones, and wrong signs among clear effects."""
    null, real = called[:N_LABELS], called[N_LABELS:]
    sure = np.abs(clear) > CLEAR
    wrong = int((real & sure & (np.sign(clear) != np.sign(shift[N_LABELS:]))).sum())
    total = int(called.sum())
    return {
        "method": method,
        "calls": total,
        "of relabeled controls": int(null.sum()),
        "wrong sign of a clear effect": wrong,
        "share of both": (null.sum() + wrong) / max(total, 1),
        "clear effects found": float((real & sure).sum() / max(sure.sum(), 1)),
    }


def standardized(cells: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Difference of means in standard errors."""
    error = np.sqrt(cells.var(axis=0) / len(cells) + control.var(axis=0) / len(control))
    return (cells.mean(axis=0) - control.mean(axis=0)) / np.maximum(error, 1e-9)


def welch(cells: np.ndarray, control: np.ndarray) -> np.ndarray:
    """P-values of Welch's t-test."""
    with np.errstate(all="ignore"):
        return np.asarray(stats.ttest_ind(cells, control, equal_var=False).pvalue)


def ranks(cells: np.ndarray, control: np.ndarray) -> np.ndarray:
    """P-values of the rank test."""
    return np.asarray(stats.mannwhitneyu(cells, control).pvalue)


def dense(adata: ad.AnnData) -> np.ndarray:
    """Values as a dense array."""
    return np.asarray(adata.X.todense() if sparse.issparse(adata.X) else adata.X, np.float64)


if __name__ == "__main__":
    main()
