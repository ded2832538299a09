"""Which source of embeddings predicts responses, for all perturbations and for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import quantile_levels
from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import explained_variance, leave_one_out, precision_between, solve
from distpert.model.kernel_choice import choose_kernel, diagonalize
from distpert.model.kernels import SHARED, Kernel, parts_between

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2000
TOGETHER = "all sources"


class LatentResponses(NamedTuple):
    """Responses of the training perturbations, as the Gaussian process sees them.

    Attributes
    ----------
    perturbations
        Labels.
    response
        (perturbation, factor), tempered, centered, with unit variance.
    weight
        (factor,) weights that sum to one.
    share
        (factor,) share of the variance that follows the kernel.
    """

    perturbations: tuple[str, ...]
    response: NDArray[np.float64]
    weight: NDArray[np.float64]
    share: NDArray[np.float64]


def relevance(
    responses: LatentResponses, embeddings: Embeddings, kernel: Kernel, ci_prob: float, seed: int = 0
) -> pd.DataFrame:
    """Return a row for each source, and one for all together; see `Posterior.relevance`."""
    import pandas as pd

    labels = [label for label in responses.perturbations if embeddings.has(label)]
    covered = embeddings.covers(labels).sum(axis=0)
    rows = {
        name: {
            "weight": kernel.source_weights[source],
            "length_scale": kernel.length_scales[source],
            "n_perturbations": int(covered[source]),
            "n_genes": int(embeddings.covered[:, source].sum()),
            **_r2(_errors_alone(responses, embeddings, name), responses, ci_prob, seed),
        }
        for source, name in enumerate(embeddings.source_names)
    }
    if kernel.shared:
        rows[SHARED] = {"weight": kernel.shared}
    eigen = diagonalize(responses.perturbations, embeddings, kernel)
    rows[TOGETHER] = {
        "weight": 1.0,
        "n_perturbations": len(labels),
        "n_genes": len(embeddings.genes),
        **_r2(_errors(responses, responses.share, *eigen), responses, ci_prob, seed),
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")
    return table.astype({"n_perturbations": "Int64", "n_genes": "Int64"})


def explain(
    labels: Sequence[str], responses: LatentResponses, embeddings: Embeddings, kernel: Kernel, n_neighbors: int
) -> pd.DataFrame:
    """Return the training perturbations that predictions rest on; see `Posterior.explain`."""
    import pandas as pd

    known = responses.perturbations
    eigen, row_of = diagonalize(known, embeddings, kernel), {label: row for row, label in enumerate(known)}
    parts = parts_between(labels, known, embeddings, kernel)
    columns = ("perturbation", "neighbor", "weight", "kernel", "source")
    rows: list[tuple[str, str, float, float, str]] = []
    for i, label in enumerate(labels):
        own = row_of.get(label)
        others = np.delete(np.arange(len(known)), [] if own is None else [own])
        cross = sum((part[i] for part in parts.values()), np.zeros(len(known)))
        weights = np.zeros(len(others))
        for rho, w in zip(responses.share, responses.weight, strict=True):
            if own is None:
                weights += w * rho * solve(rho, *eigen, cross)
            else:  # in training: predicted from the others
                (precision,) = precision_between(rho, *eigen, [own], range(len(known)))
                weights += w * -precision[others] / precision[own]
        for j in np.argsort(-np.abs(weights))[:n_neighbors]:
            of_source = {name: float(part[i, others[j]]) for name, part in parts.items()}
            best = max(of_source, key=lambda name: of_source[name]) if of_source else ""
            rows.append((label, known[others[j]], float(weights[j]), float(cross[others[j]]), best))
    return pd.DataFrame(rows, columns=list(columns))


def told_by_source(
    labels: Sequence[str], responses: LatentResponses, embeddings: Embeddings, kernel: Kernel
) -> dict[str, NDArray[np.float64]]:
    r"""Share of the variance of each label's response that each part of the kernel tells (label,), by its name.

    What embeddings tell, :math:`\rho k_*' C^{-1} \rho k_*`, is a sum over the parts of the kernel :math:`k_*` on the
    right. A part can be slightly negative.
    """
    known = responses.perturbations
    parts = parts_between(labels, known, embeddings, kernel)
    names = list(parts)
    eigen, row_of = diagonalize(known, embeddings, kernel), {label: row for row, label in enumerate(known)}
    for i, label in enumerate(labels):
        if (own := row_of.get(label)) is not None:  # as if it had been left out
            for part in parts.values():
                part[i, own] = 0
    found = {name: np.zeros(len(labels)) for name in names}
    cross = sum(parts.values(), np.zeros((len(labels), len(known))))
    for rho, w in zip(responses.share, responses.weight, strict=True):
        whole = solve(rho, *eigen, cross.T).T
        for name in names:
            found[name] += w * rho**2 * (whole * parts[name]).sum(axis=1)
        for i, label in enumerate(labels):
            if (own := row_of.get(label)) is not None:
                (precision,) = precision_between(rho, *eigen, [own], range(len(known)))
                for name in names:
                    less = (cross[i] @ precision) * (precision @ parts[name][i]) / precision[own]
                    found[name][i] -= w * rho**2 * less
    return found


def _errors_alone(responses: LatentResponses, embeddings: Embeddings, name: str) -> NDArray[np.float64] | None:
    """Squared errors of responses left out, predicted from one source; None if it tells nothing apart."""
    one = embeddings.source(name)
    try:
        _, *eigen = choose_kernel(one, responses.perturbations, responses.response, responses.weight)
    except ValueError:
        return None
    share, _ = explained_variance(responses.response, *eigen)
    return _errors(responses, share, *eigen)


def _errors(
    responses: LatentResponses, share: NDArray, eigenvalues: NDArray, eigenvectors: NDArray
) -> NDArray[np.float64]:
    """Squared errors of responses left out (perturbation,)."""
    predicted, _ = leave_one_out(share, eigenvalues, eigenvectors, responses.response)
    errors: NDArray[np.float64] = (responses.response - predicted) ** 2 @ responses.weight
    return errors


def _r2(errors: NDArray[np.float64] | None, responses: LatentResponses, ci_prob: float, seed: int) -> dict[str, float]:
    """R² with an interval by resampling perturbations."""
    if errors is None:
        return {"r2": 0.0, "r2_lower": 0.0, "r2_upper": 0.0}
    size = responses.response**2 @ responses.weight
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(size), size=(RESAMPLES, len(size)))
    drawn = 1 - errors[rows].sum(axis=1) / size[rows].sum(axis=1)
    _, low, high = np.quantile(drawn, quantile_levels(ci_prob))
    return {"r2": float(1 - errors.sum() / size.sum()), "r2_lower": float(low), "r2_upper": float(high)}
