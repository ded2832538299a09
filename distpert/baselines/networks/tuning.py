"""The choice of a network's settings on held-out training perturbations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count
from distpert.baselines.networks.training import Groups, Head, Layers, Setting, train

# Numbers of held-out training perturbations on which to compare settings, and to choose the number of epochs.
FEWEST_COMPARED = 40
FEWEST_VALIDATED = 120


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """How networks are tuned and trained.

    Training perturbations are split at random into folds. A network is trained without one fold, and its loss on the
    fold is recorded before the first epoch and after each. The least value of this curve is the result of a setting. If
    a fold has fewer than 40 perturbations, the curves of several folds are averaged. The search starts at the first
    value of each of four grids and goes through one grid after the other. It tries each value of a grid with the best
    values so far of the other grids. For the best setting, curves of further folds are added until 120 perturbations
    are held out; the mean curve gives the number of epochs. Networks are then trained for this number of epochs on all
    training perturbations, and their predictions are averaged.

    Attributes
    ----------
    hidden
        Widths of the hidden layers, to choose from.
    learning_rates
        Step sizes of AdamW, to choose from.
    dropouts
        Shares of hidden units to drop in each step, to choose from.
    decays
        Weight decays, to choose from.
    max_epochs
        Largest number of epochs.
    patience
        Training stops after this many epochs without a lower validation loss.
    validation_share
        Share of the training perturbations in a fold.
    batch_size
        Largest number of groups in a step. An epoch has at least 4 steps, if there are enough groups.
    n_networks
        Number of networks to average, which differ in their random numbers.
    """

    hidden: tuple[tuple[int, ...], ...] = ((256, 256), (64, 64))
    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    dropouts: tuple[float, ...] = (0.5, 0.25)
    decays: tuple[float, ...] = (0.01, 10.0)
    max_epochs: int = 80
    patience: int = 10
    validation_share: float = 0.2
    batch_size: int = 64
    n_networks: int = 3

    def __post_init__(self) -> None:
        for name in ("hidden", "learning_rates", "dropouts", "decays"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: give at least one value to try")
        if wrong := [widths for widths in self.hidden if not all(width >= 1 for width in widths)]:
            raise ValueError(f"hidden layers must have a width of at least 1, not {wrong[0]}")
        if wrong_rates := [rate for rate in self.learning_rates if not 0 < rate < np.inf]:
            raise ValueError(f"learning_rates must be numbers above 0, not {wrong_rates[0]}")
        if wrong_shares := [share for share in self.dropouts if not 0 <= share < 1]:
            raise ValueError(f"dropouts must be at least 0 and below 1, not {wrong_shares[0]}")
        if wrong_decays := [decay for decay in self.decays if not 0 <= decay < np.inf]:
            raise ValueError(f"decays must be numbers of at least 0, not {wrong_decays[0]}")
        if not 0 < self.validation_share <= 0.5:
            raise ValueError(f"validation_share must be above 0 and at most 0.5, not {self.validation_share}")
        for name in ("max_epochs", "patience", "batch_size", "n_networks"):
            check_count(name, getattr(self, name))


@dataclass(frozen=True, eq=False)
class Trial:
    """A setting that was tried, and its validation losses.

    Attributes
    ----------
    setting : Setting
    losses : ndarray, shape (1 + epoch,)
        Mean loss on held-out training perturbations before the first epoch and after each.
    n_validated : int
        Number of these perturbations.
    """

    setting: Setting
    losses: NDArray[np.float64]
    n_validated: int

    @property
    def epochs(self) -> int:
        """Number of epochs with the least loss."""
        return int(self.losses.argmin())


@dataclass(frozen=True, eq=False, repr=False)
class Tuned:
    """Trained networks, and how they were chosen.

    Attributes
    ----------
    head : Head
        Meaning of the outputs.
    networks : tuple of Layers
        The networks to average.
    best : Trial
        The setting of the networks, validated on more perturbations than in the search.
    trials : tuple of Trial
        All settings that were tried in the search, in order.
    seconds_tuning, seconds_training : float
        Wall time of the search, and of the training of all ``networks``, with compilation.
    """

    head: Any
    networks: tuple[Layers, ...]
    best: Trial
    trials: tuple[Trial, ...]
    seconds_tuning: float
    seconds_training: float

    def __repr__(self) -> str:
        best, losses = self.best, [trial.losses.min() for trial in self.trials]
        rows = [
            ("setting", f"{best.setting}; {best.epochs} epochs"),
            (
                "validation",
                f"loss {best.losses.min():.5g}, before training {best.losses[0]:.5g}, on {best.n_validated} training "
                "perturbations",
            ),
            ("search", f"{len(losses)} settings, losses {min(losses):.5g} to {max(losses):.5g}"),
            ("networks", f"{len(self.networks)}, averaged"),
            ("time", f"{self.seconds_tuning:.1f} s for the search, {self.seconds_training:.1f} s for the networks"),
        ]
        return "\n".join(f"  {name:<15}{what}" for name, what in rows)


def tune(
    head_without: Callable[[NDArray[np.integer]], Head],
    groups: Groups,
    perturbation: NDArray[np.integer],
    settings: NetworkSettings,
    *,
    seed: int,
) -> Tuned:
    """Choose a setting on held-out training perturbations, then train networks with it on all perturbations.

    Parameters
    ----------
    head_without
        Function that makes the head of a network trained without the given perturbations.
    groups
        As in `train`.
    perturbation
        (group,) index of each group's perturbation.
    settings
        The settings to try.
    seed
        Seed of splits, weights, order and dropout.
    """
    started = time.perf_counter()
    folds = validation_folds(int(perturbation.max()) + 1, settings.validation_share, seed)
    heads = [head_without(fold) for fold in folds[: n_folds_for(folds, FEWEST_VALIDATED)]]
    curves: dict[Setting, list[NDArray[np.float64]]] = {}

    def attempt(setting: Setting, fewest: int = FEWEST_COMPARED) -> Trial:
        number = n_folds_for(folds, fewest)
        tried = curves.setdefault(setting, [])
        for fold, head in list(zip(folds, heads, strict=False))[len(tried) : number]:
            is_held_out = np.isin(perturbation, fold)
            trained = train(
                head,
                groups,
                np.flatnonzero(~is_held_out),
                setting,
                epochs=settings.max_epochs,
                batch_size=settings.batch_size,
                seed=[seed, len(tried)],
                validation=np.flatnonzero(is_held_out),
                patience=settings.patience,
            )
            tried.append(trained.losses)
        return Trial(setting, mean_curve(tried[:number]), sum(map(len, folds[:number])))

    chosen = search(lambda setting: float(attempt(setting).losses.min()), settings)
    trials = tuple(attempt(setting) for setting in curves)
    best = attempt(chosen, FEWEST_VALIDATED)
    tuned = time.perf_counter()
    head = head_without(np.arange(0))
    networks = tuple(
        train(
            head,
            groups,
            np.arange(len(perturbation)),
            chosen,
            epochs=best.epochs,
            batch_size=settings.batch_size,
            seed=[seed, len(folds) + number],
        ).layers
        for number in range(settings.n_networks)
    )
    return Tuned(head, networks, best, trials, tuned - started, time.perf_counter() - tuned)


def search(loss: Callable[[Setting], float], settings: NetworkSettings) -> Setting:
    """Go through the grids one by one. The least loss wins; of equal losses, the earlier value."""
    grids: dict[str, tuple[Any, ...]] = {
        "learning_rate": settings.learning_rates,
        "hidden": settings.hidden,
        "dropout": settings.dropouts,
        "decay": settings.decays,
    }
    best = Setting(**{name: values[0] for name, values in grids.items()})
    for name, values in grids.items():
        best = min((best._replace(**{name: value}) for value in values), key=loss)
    return best


def validation_folds(n_perturbations: int, share: float, seed: int) -> list[NDArray[np.intp]]:
    """Split indices of perturbations at random into folds of about this share."""
    order = np.random.default_rng([seed, n_perturbations]).permutation(n_perturbations)
    return np.array_split(order, min(max(round(1 / share), 2), n_perturbations))


def n_folds_for(folds: Sequence[NDArray[np.intp]], fewest: int) -> int:
    """Return how many folds have at least ``fewest`` perturbations together; all folds if they have fewer."""
    held = np.cumsum([len(fold) for fold in folds])
    return min(int(np.searchsorted(held, fewest)) + 1, len(folds))


def mean_curve(curves: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Average of curves. A curve that ended early continues with its last value."""
    length = max(map(len, curves))
    return np.mean([np.append(curve, np.full(length - len(curve), curve[-1])) for curve in curves], axis=0)
