"""Cross-validate models on a screen, and write tables, pictures and a report.

    python validation/run.py --data norman.h5ad --embeddings embeddings.npz --out norman --n-genes 2000

The output folder gets report.md, scores.csv, comparison.csv, by_perturbation.csv, cost.csv and pictures. The scores of
each fold and model are kept in folds/: an interrupted run continues from there, and models can be added. Several
processes may share the folder, each with other --folds; a last call without --folds reads all. --peers takes the folder
that peers/score.py wrote and adds its methods.
"""

import argparse
import contextlib
import io
import platform
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from screens import AUTO, BUNDLED, EMBEDDINGS_HELP, open_embeddings, open_screen

import distpert
from distpert._shared.labels import genes_of, listed
from distpert.baselines import BASELINES
from distpert.cross_validation.splits import Splits
from distpert.embeddings.vectors import Embeddings


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    matplotlib.use("Agg")
    notes = io.StringIO()
    with contextlib.redirect_stdout(notes):
        adata, keys = open_screen(
            arguments.data, dataset=arguments.dataset, context_key=arguments.context_key, n_genes=arguments.n_genes
        )
    print(notes.getvalue(), end="")
    embeddings = open_embeddings(arguments.embeddings)
    usable = can_be_held_out(adata.obs["perturbation"], embeddings)
    genes = {gene for label in usable for gene in genes_of(label)}
    settings = {
        "n_folds": len(genes) if arguments.leave_one_out else arguments.n_folds,
        "seed": arguments.seed,
        "n_bins": arguments.n_bins,
        "num_draws": arguments.draws,
    }
    folder = arguments.out / "folds"
    scores = distpert.cross_validate(
        adata, embeddings, models=arguments.models, folds=arguments.folds, path=folder, **settings, **keys
    )
    if arguments.peers:
        scores = add_peers(scores, arguments.peers)
    splits = Splits.from_json((folder / "splits.json").read_text())
    about = describe(adata, notes.getvalue().strip(), scores, splits, settings)
    write(arguments.out, Path(arguments.data).stem, about, scores, arguments.reference)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = ["distpert", *BASELINES]
    parser.add_argument("--data", required=True, help="an h5ad that screens.py recognizes")
    parser.add_argument("--embeddings", nargs="+", default=[BUNDLED], help=EMBEDDINGS_HELP)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--models", nargs="+", default=known, choices=known, metavar="MODEL", help=f"of {known}")
    parser.add_argument("--reference", default="distpert", help="model to compare the others with")
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--n-folds", type=int, default=9)
    number.add_argument("--leave-one-out", action="store_true", help="as many folds as there are perturbed genes")
    parser.add_argument("--folds", type=int, nargs="+", default=None, help="folds to run; by default all")
    parser.add_argument("--dataset", default=None, help="one of obs['dataset'], if the file has several")
    parser.add_argument("--context-key", default=AUTO, type=lambda name: None if name == "none" else name,
                        help="column of obs; by default a usual one; none for no contexts")  # fmt: skip
    parser.add_argument("--n-genes", type=int, default=None, help="of largest variance, plus the perturbed genes")
    parser.add_argument("--n-bins", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=200, help="posterior draws of distpert")
    parser.add_argument("--peers", type=Path, default=None, help="folder with the scores.csv of peers/score.py")
    arguments = parser.parse_args(argv)
    if arguments.reference not in arguments.models:
        parser.error(f"--reference {arguments.reference} is not among --models: {', '.join(arguments.models)}")
    if len(arguments.models) < 2 and not arguments.peers:
        parser.error("--models: at least two are needed to compare")
    if arguments.peers and not (arguments.peers / "scores.csv").exists():
        parser.error(f"--peers: no {arguments.peers / 'scores.csv'}; peers/score.py --out {arguments.peers} makes it")
    return arguments


def can_be_held_out(labels: pd.Series, embeddings: Embeddings) -> list[str]:
    """Perturbations with two cells and an embedding, the condition of `cross_validate`."""
    n_cells = labels.value_counts()
    return [label for label, n in n_cells.items() if label != "control" and n > 1 and embeddings.has(label)]


def add_peers(scores: xr.Dataset, folder: Path) -> xr.Dataset:
    """Add the methods that `peers/score.py` scored, after a check that the cells are the same."""
    file = folder / "scores.csv"
    if "context" in scores.dims:
        raise ValueError("peers are scored without contexts: --context-key none")
    table = pd.read_csv(file)
    table = table[table["fold"].isin(scores["fold"].to_numpy())]
    rows = table.drop_duplicates(["fold", "perturbation"]).set_index(["fold", "perturbation"])["n_cells"]
    ours = scores["n_cells"].to_series().dropna()
    if not rows.index.isin(ours.index).all() or not (ours[rows.index] == rows).all():
        raise ValueError(f"{file} is of other cells or folds. Score the peers again on the folds of this run")
    models = scores["model"].to_numpy().tolist()
    parts = [scores]
    for name, part in table.groupby("method", sort=False):
        part = part.set_index(["fold", "perturbation"]).to_xarray()
        part = part.reindex(fold=scores["fold"], perturbation=scores["perturbation"])
        if name in models:
            own = scores["cramer"].sel(model=name)
            if not np.allclose(own.where(part["cramer"].notnull()), part["cramer"], rtol=1e-3, equal_nan=True):
                raise ValueError(f"{name} has other scores in {file}, which is of other genes, bins or settings")
            continue
        variables = {
            key: part[key].astype(float).expand_dims(model=[name]).assign_attrs(array.attrs)
            for key, array in scores.data_vars.items()
            if array.dims == ("model", "fold", "perturbation") and key in part
        }
        parts.append(xr.Dataset(variables))
    if len(parts) == 1:
        raise ValueError(f"{file} has no method in these folds that is not already among the models")
    ours = {name: array for name, array in scores.data_vars.items() if "model" not in array.dims}
    parts[0] = scores.drop_vars(list(ours))
    return xr.concat(parts, "model", data_vars="minimal", join="outer").assign(ours).assign_attrs(scores.attrs)


def describe(adata, notes: str, scores: xr.Dataset, splits: Splits, settings: dict[str, int]) -> dict[str, str]:
    """Describe the run, for the head of the report."""
    labels = set(adata.obs["perturbation"].dropna()) - {"control"}
    held_out = {label for fold in splits.folds for label in fold.held_out}
    never = sorted(labels - held_out)
    folds = scores["fold"].to_numpy().tolist()
    tools = ", ".join(f"{name} {version(name)}" for name in ("distpert", "jax", "numpyro", "numpy"))
    return {
        "file": notes,
        "cells × genes": f"{adata.n_obs:,} × {adata.n_vars:,}",
        "perturbations": f"{len(labels)}, of which {scores.sizes['perturbation']} were held out and scored",
        "never held out": f"{listed(never)} (a single cell or no embedding)" if never else "none",
        "folds": f"{len(folds)} of {settings['n_folds']}" + f": {folds}" * (len(folds) < settings["n_folds"]),
        "bins": str(settings["n_bins"]),
        "posterior draws": str(settings["num_draws"]),
        "seed": str(settings["seed"]),
        "versions": f"{tools}, Python {platform.python_version()}",
    }


def write(out: Path, title: str, about: dict[str, str], scores: xr.Dataset, reference: str) -> None:
    """Write tables, pictures and the report."""
    from pictures import draw_differences, draw_gain
    from report import ALL, categories, differences, mean_scores, page, rows_by_perturbation, without_artefacts

    scores = without_artefacts(scores)
    there = categories(scores)
    compared = differences(scores, reference)
    means = {category: mean_scores(scores, category) for category in there}
    pd.concat(means, names=["category"]).to_csv(out / "scores.csv")
    compared.to_csv(out / "comparison.csv", index=False)
    rows_by_perturbation(scores).to_csv(out / "by_perturbation.csv", index=False)
    scores["seconds"].to_series().dropna().to_csv(out / "cost.csv")
    files: dict[str, list[str]] = {}
    for category, rows in compared.groupby("category", sort=False):
        name = "differences.png" if category == ALL else f"differences_{category}.png"
        draw_differences(rows, reference).savefig(out / name, dpi=150)
        files.setdefault(category, []).append(name)
    gain = "gain.png"
    draw_gain(scores, there[1:] or there, reference).savefig(out / gain, dpi=150)
    files.setdefault(ALL, []).append(gain)
    text = page(title, about, scores, compared, files, reference)
    (out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
