"""Seconds and memory that each method takes to train on one fold, to its own stopping rule.

    python validation/benchmarks/methods.py --data k562.h5ad --embeddings embeddings.npz --out cost.csv

Each method is trained in a process of its own, one after the other, from the counted histograms; distpert's seconds
include compilation. Peers are timed by their own scripts (``validation/peers``).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--embeddings", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, help="of nine")
    parser.add_argument("--models", nargs="+", default=["distpert", "network", "network_cross_entropy", "network_mean"])
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train(arguments)))
        return
    rows = []
    for model in arguments.models:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--one", model], check=True, stdout=subprocess.PIPE, text=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(arguments.out, index=False)


def train(arguments: argparse.Namespace) -> dict[str, str | float]:
    from screens import open_screen

    import distpert
    from distpert.cross_validation.models import name_models
    from distpert.embeddings.sources import as_embeddings

    adata, keys = open_screen(arguments.data)
    embeddings = as_embeddings(distpert.read_embeddings(arguments.embeddings))
    labels = sorted(set(adata.obs["perturbation"].astype(str)) - {"control"})
    folds = distpert.split_perturbations([label for label in labels if embeddings.has(label)]).folds
    training = distpert.count_histograms(adata, **keys).drop(list(folds[arguments.fold].held_out))
    ((name, model),) = name_models([arguments.one], 200, keep=False).items()
    started, used = time.perf_counter(), time.process_time()
    model.fit(training, embeddings, seed=0)
    return {
        "model": name,
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - used, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
