"""Scouter (Zhu & Li 2024) on one fold: generates cells from control cells and the perturbed genes' embeddings.

python validation/peers/run_scouter.py --data k562.h5ad --embeddings e.npz --splits splits.json --fold 0 --out scouter

Settings are the package's defaults, which are its authors' for Replogle K562: at most 40 epochs, stopped after 5
without gain on a tenth of the training perturbations; 300 cells for each perturbation. For Norman they set
--loss-lambda 0.05.

scouter-learn 0.1.10 means to return to its best epoch but ends with the weights of its last, as it keeps a reference to
them and not a copy. It runs here as it is; with --restore-best it gets the copy.
"""

import copy
import random

import numpy as np
import peer
import torch
from scouter import Scouter, ScouterData


def main() -> None:
    parser = peer.parser(__doc__.splitlines()[0])
    parser.add_argument("--loss-lambda", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=40, help="at most")
    parser.add_argument("--restore-best", action="store_true", help="go back to the best epoch's weights")
    parser.add_argument("--cells", type=int, default=300, help="cells to generate for each perturbation")
    fold = peer.read_fold(parser.parse_args())
    seed = fold.arguments.seed
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

    embeddings = fold.embeddings.copy()
    embeddings.loc["ctrl"] = 0.0  # so that "A+ctrl" is A's embedding
    screen = ScouterData(fold.cells, embeddings, key_label="condition", key_var_genename="gene_name")
    screen.setup_ad("embd_index", slim=False)  # slim would drop the embeddings of held-out genes
    screen.gene_ranks()
    screen.get_dropout_non_zero_genes()
    screen.split_Train_Val_Test(if_test=False, seed=seed)
    fold.lap("prepare")

    model = Scouter(screen)
    model.model_init()
    if fold.arguments.restore_best:
        network = model.network
        network.state_dict = lambda: copy.deepcopy(type(network).state_dict(network))
    model.train(loss_lambda=fold.arguments.loss_lambda, n_epochs=fold.arguments.epochs)
    fold.lap("train")

    conditions = [peer.condition(label) for label in fold.held_out]
    generated = model.pred(conditions, n_pred=fold.arguments.cells, seed=seed)
    cells = np.stack([generated[name] for name in conditions])
    fold.lap("predict")
    fold.write(
        "scouter-learn", cells.mean(axis=1), cells=cells, torch=torch.__version__, threads=torch.get_num_threads(),
        validation=sorted(set(screen.val_conds) - {"ctrl"}), epochs=len(model.loss_history["val_loss"]),
        **model.loss_history,
    )  # fmt: skip


if __name__ == "__main__":
    main()
