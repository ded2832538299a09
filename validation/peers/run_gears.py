"""GEARS (Roohani, Huang & Leskovec 2024) on one fold: a graph network over Gene Ontology and co-expression.

python validation/peers/run_gears.py --data k562.h5ad --embeddings e.npz --splits splits.json --fold 0 --out gears \
    --gene-text gene_text.tsv.gz

GEARS reads no embeddings (they only say which labels all peers train on) but a graph of genes that share Gene Ontology
terms, which it would download. This script writes the files that it looks for, from a table of genes' terms: columns
`symbol` and `text`, the terms listed after "Molecular function:", "Biological process:" and "Cellular component:".
Settings are the package's defaults and its README's: 20 epochs, the best on a tenth of the training perturbations.
"""

import os
import pickle
import random
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import peer
import torch
from gears import GEARS, PertData
from scipy.sparse import csr_matrix

SECTIONS = r"(?:Molecular function|Biological process|Cellular component): "


def main() -> None:
    parser = peer.parser(__doc__.splitlines()[0])
    parser.add_argument("--gene-text", required=True, help="tsv with columns symbol and text")
    parser.add_argument("--epochs", type=int, default=20)
    fold = peer.read_fold(parser.parse_args())
    out = Path(fold.arguments.out).absolute()
    fold.arguments.out = str(out)
    terms = ontology_terms(fold.arguments.gene_text)
    leave_out_unknown(fold, set(terms))
    random.seed(fold.arguments.seed)
    np.random.seed(fold.arguments.seed)
    torch.manual_seed(fold.arguments.seed)

    with tempfile.TemporaryDirectory() as folder:  # GEARS keeps gigabytes of cell graphs there
        os.chdir(folder)
        write_graph(Path("data"), terms)
        data = PertData("./data")
        fold.cells.obs["cell_type"] = "cells"
        data.new_data_process("screen", adata=fold.cells)
        data.prepare_split("no_test", seed=fold.arguments.seed)
        data.get_dataloader(batch_size=32, test_batch_size=128)
        model = GEARS(data, device="cuda" if torch.cuda.is_available() else "cpu")
        model.model_initialize(hidden_size=64)
        fold.lap("prepare")
        model.train(epochs=fold.arguments.epochs)
        fold.lap("train")
        predicted = model.predict([label.split("+") for label in fold.held_out])
        fold.lap("predict")
    means = np.stack([predicted[label.replace("+", "_")] for label in fold.held_out])
    fold.write(
        "cell-gears", means, torch=torch.__version__, threads=torch.get_num_threads(),
        validation=sorted(data.set2conditions["val"]), graph_genes=len(data.pert_names),
    )  # fmt: skip


def ontology_terms(path: str) -> dict[str, set[str]]:
    """Read the terms of each gene that has any."""
    table = pd.read_csv(path, sep="\t").set_index("symbol")["text"]
    sections = {symbol: re.split(SECTIONS, text)[1:] for symbol, text in table.items()}
    terms = {
        symbol: {term for part in parts for term in part.strip().removesuffix(".").split("; ")}
        for symbol, parts in sections.items()
    }
    return {symbol: found for symbol, found in terms.items() if found}


def leave_out_unknown(fold: peer.Fold, known: set[str]) -> None:
    """Drop labels with a gene that the graph has not, and say so: GEARS would take their cells for control cells."""

    def is_known(label: str) -> bool:
        return set(label.split("+")) - {"ctrl"} <= known

    keep = fold.cells.obs["condition"].map(is_known).to_numpy(bool)
    left = sorted(fold.cells.obs["condition"][~keep].unique()), [x for x in fold.held_out if not is_known(x)]
    print(f"without Gene Ontology terms, left out of training: {left[0]}, of prediction: {left[1]}")
    fold.cells = fold.cells[keep].copy()
    fold.held_out = [label for label in fold.held_out if is_known(label)]


def write_graph(folder: Path, terms: dict[str, set[str]]) -> None:
    """Write genes, terms, and edges weighted by the Jaccard index of terms, where it is above 0.1, as GEARS does."""
    (folder / "go_essential_all").mkdir(parents=True)
    (folder / "gene2go_all.pkl").write_bytes(pickle.dumps(terms))
    genes = sorted(terms)
    (folder / "essential_all_data_pert_genes.pkl").write_bytes(pickle.dumps(genes))
    columns = {term: i for i, term in enumerate(sorted(set().union(*terms.values())))}
    rows, cols = zip(*((i, columns[term]) for i, gene in enumerate(genes) for term in terms[gene]), strict=True)
    has = csr_matrix((np.ones(len(rows)), (rows, cols)), (len(genes), len(columns)))
    shared, sizes = (has @ has.T).tocoo(), np.array([len(terms[gene]) for gene in genes])
    jaccard = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    names, near = np.array(genes), jaccard > 0.1
    edges = {"source": names[shared.row[near]], "target": names[shared.col[near]], "importance": jaccard[near]}
    pd.DataFrame(edges).to_csv(folder / "go_essential_all" / "go_essential_all.csv", index=False)


if __name__ == "__main__":
    main()
