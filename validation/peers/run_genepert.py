"""Ridge regression in the manner of GenePert (Chen & Zou 2024) on one fold: from embeddings to mean expression.

python validation/peers/run_genepert.py --data k562.h5ad --embeddings e.npz --splits splits.json --fold 0 --out genepert

GenePert is no package. As in its paper, the input is the embedding scaled to length one (for a combination, the sum of
its genes' embeddings so scaled), the output is the mean log-normalized expression, and the penalty is 0.1, 1 or 10.
Here 5-fold cross-validation over training perturbations chooses the penalty, and the control is no training row.
"""

import numpy as np
import pandas as pd
import peer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold


def main() -> None:
    fold = peer.read_fold(peer.parser(__doc__.splitlines()[0]).parse_args())
    groups = fold.cells.obs.groupby("condition", observed=True).indices
    training = [name for name in groups if name != "ctrl"]
    means = np.stack([np.asarray(fold.cells.X[groups[name]].mean(axis=0)).ravel() for name in training])
    fold.lap("prepare")

    grid = GridSearchCV(
        Ridge(),
        {"alpha": [0.1, 1.0, 10.0]},
        scoring="neg_mean_squared_error",
        cv=KFold(5, shuffle=True, random_state=fold.arguments.seed),
    )
    grid.fit(features(fold.embeddings, training), means)
    fold.lap("train")

    predicted = grid.predict(features(fold.embeddings, fold.held_out))
    fold.lap("predict")
    fold.write("scikit-learn", predicted, **grid.best_params_)


def features(embeddings: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """Sum the genes' embeddings and scale to length one."""
    sums = np.stack([embeddings.loc[[g for g in label.split("+") if g != "ctrl"]].sum().to_numpy() for label in labels])
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
