"""Choice of the kernel: weights, length scales and power of greatest marginal likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import kernel_evidence
from distpert.model.kernels import (
    RELATIVE_SCALE,
    Kernel,
    Points,
    auxiliary_kernel,
    complete,
    genes_in_common,
    joint_distances,
    kernel_between,
    source_distances,
    typical_distance,
)

POWERS = (1.0, 2.0)  # from the roughest kernel to the smoothest
# Length scales have a log-normal prior about RELATIVE_SCALE.
SCALE_SPREAD = 0.5
SHORTEST, LONGEST = 0.1, 4.0  # in typical distances
FEWEST_LABELS = 3  # that a source must cover
LEAST_WEIGHT = 0.01  # below it, a source is left out
MOST_LABELS = 600  # on which the kernel is chosen; more tell hardly more, and cost the cube of their number
MOST_EXACT = 4000  # perturbations with all eigenvectors; the time grows with the cube of their number
N_LEADING = 600  # eigenvectors of more
OPTIONS = {"maxiter": 50, "ftol": 1e-5, "gtol": 0.02}  # of L-BFGS; in nats, hundredths do not matter
REACH = 5.0  # largest distance of the logarithm of a weight from the middle

_Backward: TypeAlias = Callable[[NDArray], tuple[float, float]]


class _Part(NamedTuple):
    """One source, between the labels on which the kernel is chosen.

    Attributes
    ----------
    order
        Positions of the labels: those that the source covers, then those that it lacks.
    distance
        (covered, covered) distances, in units of the typical one.
    slope, rest
        (missing, covered) and (missing, missing): `Completion` of the others.
    """

    order: NDArray[np.intp]
    distance: NDArray[np.float64]
    slope: NDArray[np.float64]
    rest: NDArray[np.float64]

    def evaluate(self, length_scale: float, power: float) -> tuple[NDArray[np.float64], _Backward]:
        """Return the kernel (label, label), and a function that differentiates along it.

        The function takes the gradient (label, label) by the kernel, and returns the derivatives by the log of the
        length scale and by the power.
        """
        relative = self.distance / length_scale
        ratio = relative**power
        decay = np.exp(-ratio)
        n_covered, back = len(decay), np.argsort(self.order)
        matrix = np.empty((len(back), len(back)))
        matrix[:n_covered, :n_covered] = decay
        matrix[n_covered:, :n_covered] = self.slope @ decay
        matrix[:n_covered, n_covered:] = matrix[n_covered:, :n_covered].T
        matrix[n_covered:, n_covered:] = matrix[n_covered:, :n_covered] @ self.slope.T + self.rest
        variance = matrix.diagonal().copy()
        sizes = np.sqrt(variance)
        matrix /= np.outer(sizes, sizes)

        def backward(gradient: NDArray) -> tuple[float, float]:
            gradient = gradient[np.ix_(self.order, self.order)]
            by_size = (gradient * matrix).sum(axis=1) / variance
            scaled = gradient / np.outer(sizes, sizes)
            of_missing = scaled[n_covered:, n_covered:] - np.diag(by_size[n_covered:])
            along = scaled[:n_covered, n_covered:] @ self.slope
            inner = scaled[:n_covered, :n_covered] + along + along.T + self.slope.T @ of_missing @ self.slope
            common = inner * decay * ratio
            return power * float(common.sum()), -float((common * np.log(np.where(relative > 0, relative, 1))).sum())

        return matrix[np.ix_(back, back)], backward


def choose_kernel(
    embeddings: Embeddings, perturbations: Sequence[str], response: NDArray, weight: NDArray | None = None
) -> tuple[Kernel, NDArray, NDArray]:
    r"""Kernel whose settings have the greatest marginal likelihood for given responses.

    The log-likelihood of factor k counts :math:`w_k / \sum_j w_j^2` times: strong factors decide, and factors of noise
    do not blur the choice. Weights, length scales and power are found by their gradient (L-BFGS). Of several sources,
    the parts of single ones are maximized first. Their weights are the proportions in the joint part, which is then
    added, and all is maximized again. A part of no use gets a weight of 0. With more than 600 perturbations, the kernel
    is chosen on as many of them, at random.

    Parameters
    ----------
    embeddings
        Of the perturbed genes.
    perturbations
        Labels.
    response
        (perturbation, factor), unit variance.
    weight
        (factor,) weights of factors that sum to one; by default all are the same.

    Returns
    -------
    kernel, eigenvalues, eigenvectors
        The kernel, and (eigen,) and (perturbation, eigen) of its matrix between the perturbations.

    Raises
    ------
    ValueError
        If all perturbations have the same embedding in all sources.
    """
    embedded = tuple(label for label in perturbations if embeddings.has(label))
    points = Points.of(embedded, embeddings)
    typical = [_typical(points, source) for source in range(embeddings.n_sources)]
    used = [source for source, distance in enumerate(typical) if distance]
    if not used:
        raise ValueError("all training perturbations have the same embedding. Pass embeddings that differ")
    auxiliary = tuple(RELATIVE_SCALE * (distance or 1.0) for distance in typical)
    empty = Kernel((0.0,) * len(typical), auxiliary, reference=embedded, auxiliary=auxiliary)

    chosen = np.arange(len(embedded))
    if len(chosen) > MOST_LABELS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST_LABELS, replace=False))
    rows = np.array([row for row, label in enumerate(perturbations) if embeddings.has(label)])[chosen]
    labels, points = [embedded[i] for i in chosen], points.take(chosen)
    parts = [_part(points, empty, source, typical[source]) for source in used]
    names = [gene for label in labels for gene in genes_of(label)]
    # Labels differ, so a gene that occurs twice is shared.
    common = genes_in_common(labels, labels) if len(set(names)) < len(names) else None
    weight = np.full(response.shape[1], 1 / response.shape[1]) if weight is None else weight
    known = response[rows], weight / (weight @ weight)
    start = _Settings(np.ones(len(parts)), 1.0, np.full(len(parts), RELATIVE_SCALE), float(np.mean(POWERS)))
    found = _maximize(parts, common, *known, start)
    proportions, joint_typical = np.zeros(len(typical)), 1.0
    if len(parts) > 1:
        proportions[used] = found.weights / found.weights.sum()
        far = joint_distances(points, points, replace(empty, proportions=tuple(proportions.tolist())))
        joint_typical = float(np.median(far[far > 0]))
        parts = [*parts, _Part(np.arange(len(labels)), far / joint_typical, *_nothing(len(labels)))]
        start = _Settings(
            np.append(found.weights / 2, found.weights.sum() / 2),
            found.shared,
            np.append(found.scales, RELATIVE_SCALE),
            found.power,
        )
        found = _maximize(parts, common, *known, start)
    weights = np.append(found.weights, found.shared)
    weights[weights < LEAST_WEIGHT] = 0
    weights /= weights.sum()
    of_source, length_scales = np.zeros(len(typical)), np.array(auxiliary)
    of_source[used] = weights[: len(used)]
    length_scales[used] = found.scales[: len(used)] * np.array(typical)[used]
    has_joint = len(used) > 1
    kernel = Kernel(
        tuple(of_source.tolist()),
        tuple(length_scales.tolist()),
        found.power,
        float(weights[-1]),
        embedded,
        auxiliary,
        joint=float(weights[len(used)]) if has_joint else 0.0,
        joint_scale=float(found.scales[-1] * joint_typical) if has_joint else 1.0,
        proportions=tuple(proportions.tolist()) if has_joint else (),
    )
    return kernel, *diagonalize(perturbations, embeddings, kernel)


def diagonalize(
    perturbations: Sequence[str], embeddings: Embeddings, kernel: Kernel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues (eigen,) and eigenvectors (perturbation, eigen), with a diagonal of one.

    Of more than 4,000 perturbations, only the 600 leading ones, by randomized projections (Halko, Martinsson & Tropp
    2011). The others are small, and `remainder` stands for them.
    """
    matrix = kernel_between(perturbations, perturbations, embeddings, kernel)
    np.fill_diagonal(matrix, 1)  # also of perturbations without an embedding
    if len(matrix) > MOST_EXACT:
        from sklearn.utils.extmath import randomized_svd

        vectors, values, _ = randomized_svd(matrix.astype(np.float32), N_LEADING, n_iter=4, random_state=0)
        return values.astype(np.float64), vectors.astype(np.float64)
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    return np.maximum(eigenvalues, 0), eigenvectors  # rounding can make them negative


def _typical(points: Points, source: int) -> float:
    """Typical distance between the labels that a source covers; 0 if it tells too few apart."""
    covered, _ = points.split(source)
    if len(covered) < FEWEST_LABELS:
        return 0.0
    return typical_distance(points.vectors[covered, points.columns[source]])


def _part(points: Points, kernel: Kernel, source: int, typical: float) -> _Part:
    covered, missing = points.split(source)
    own, lacking = points.take(covered), points.take(missing)
    completion = complete(lacking, own, kernel, source)
    rest = auxiliary_kernel(lacking, lacking, kernel, source) - completion.slope @ completion.auxiliary.T
    bare = np.flatnonzero(~np.delete(lacking.covered, source, axis=1).any(axis=1))
    rest[bare, bare] = 1  # a pair of genes that no source has both of
    order = np.concatenate([covered, missing])
    return _Part(order, source_distances(own, own, source) / typical, completion.slope, rest)


def _nothing(n_labels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and rest of a part that lacks no label."""
    return np.zeros((0, n_labels)), np.zeros((0, 0))


class _Settings(NamedTuple):
    """Weights and relative length scales (part,), the weight of shared genes (0 if there are none), and the power."""

    weights: NDArray[np.float64]
    shared: float
    scales: NDArray[np.float64]
    power: float


def _maximize(
    parts: Sequence[_Part], common: NDArray | None, response: NDArray, weight: NDArray, start: _Settings
) -> _Settings:
    """Maximize the marginal likelihood by L-BFGS from given settings."""
    from scipy.optimize import minimize

    n_parts = len(parts)
    n_weights = n_parts + (common is not None)

    def weights_of(logits: NDArray) -> NDArray[np.float64]:
        raised = np.exp(logits - logits.max())
        return raised / raised.sum()

    def loss(at: NDArray) -> tuple[float, NDArray[np.float64]]:
        weights, scales, power = weights_of(at[:n_weights]), np.exp(at[n_weights:-1]), float(at[-1])
        evaluated = [part.evaluate(scale, power) for part, scale in zip(parts, scales, strict=True)]
        matrices = [matrix for matrix, _ in evaluated] + ([] if common is None else [common])
        matrix = np.tensordot(weights, matrices, axes=1)
        evidence, gradient = kernel_evidence(response, matrix, weight)
        np.fill_diagonal(gradient, 0)  # the diagonal is one
        along = np.array([(gradient * one).sum() for one in matrices])
        by_weight = weights * (along - weights @ along)
        slopes = np.array([backward(gradient) for _, backward in evaluated])
        off = (at[n_weights:-1] - np.log(RELATIVE_SCALE)) / SCALE_SPREAD
        by_scale = weights[:n_parts] * slopes[:, 0] - off / SCALE_SPREAD
        by_power = weights[:n_parts] @ slopes[:, 1]
        return -(evidence - 0.5 * (off**2).sum()), -np.concatenate([by_weight, by_scale, [by_power]])

    from_weights = start.weights if common is None else np.append(start.weights, start.shared)
    logits = np.log(np.maximum(from_weights, np.exp(-REACH)))
    logits -= logits.mean()
    first = np.concatenate([np.clip(logits, -REACH, REACH), np.log(start.scales), [start.power]])
    bounds = [(-REACH, REACH)] * n_weights + [(np.log(SHORTEST), np.log(LONGEST))] * n_parts + [POWERS]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=OPTIONS).x
    weights = weights_of(found[:n_weights])
    shared = float(weights[-1]) if common is not None else 0.0
    return _Settings(weights[:n_parts], shared, np.exp(found[n_weights:-1]), float(found[-1]))
