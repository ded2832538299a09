"""Kernel between perturbations, on their embeddings and on the genes that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import explained_variance

# Length scales to try with each power, in units of the median distance between training perturbations.
LENGTH_SCALES = (0.25, 0.35, 0.42, 0.5, 0.6, 0.7, 1.0, 1.4, 2.0)
POWERS = (1.0, 2.0)
# Weights to try for the genes that labels share.
SHARED = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)


@dataclass(frozen=True)
class Kernel:
    r"""Powered exponential kernel on embeddings, plus a part for the genes that two labels share.

    .. math:: k(p, q) = (1 - w) \exp\big(-(|e_p - e_q| / \ell)^a\big) + w \frac{|p \cap q|}{\sqrt{|p| |q|}}

    The second part says that ``A`` and ``A+B`` share whatever ``A`` does, also what its embedding does not show. It is
    a linear kernel on which genes are perturbed. A sum of kernels is a kernel (Rasmussen & Williams 2006, §4.2.4).

    Attributes
    ----------
    length_scale
        Distance at which the correlation of the first part has fallen to 1/e, in the units of the embeddings.
    power
        Above 0 and at most 2. With 1 it is the Matérn-1/2 kernel, which is rough. With 2 it is the squared exponential,
        which is smooth: near one between close relatives, and sooner near zero at greater distances.
    shared
        Weight w of the second part, between 0 and 1.

    References
    ----------
    Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 4.18.
    """

    length_scale: float
    power: float = 1.0
    shared: float = 0.0

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """First part (m, n) without its weight, between embeddings ``left`` (m, dims) and ``right`` (n, dims)."""
        return np.exp(-((distances(left, right) / self.length_scale) ** self.power))


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Euclidean distances (m, n), in float64; exactly zero between equal rows."""
    from scipy.spatial.distance import cdist

    return cdist(np.asarray(left, np.float64), np.asarray(right, np.float64))


def kernel_between(
    left: Sequence[str], right: Sequence[str], embeddings: Embeddings, kernel: Kernel
) -> NDArray[np.float64]:
    """Kernel (m, n) between perturbations; 0 for those without an embedding."""
    matrix = np.zeros((len(left), len(right)))
    rows = [i for i, label in enumerate(left) if embeddings.has(label)]
    columns = [j for j, label in enumerate(right) if embeddings.has(label)]
    left, right = [left[i] for i in rows], [right[j] for j in columns]
    known = kernel(embeddings.of(left), embeddings.of(right))
    if kernel.shared:
        known = (1 - kernel.shared) * known + kernel.shared * genes_in_common(left, right)
    matrix[np.ix_(rows, columns)] = known
    return matrix


def genes_in_common(left: Sequence[str], right: Sequence[str]) -> NDArray[np.float64]:
    """Cosine (m, n) of the gene sets of labels: number of shared genes, by the root of the product of both numbers."""
    names = sorted({gene for label in (*left, *right) for gene in genes_of(label)})
    position = {gene: i for i, gene in enumerate(names)}

    def members(labels: Sequence[str]) -> NDArray[np.float64]:
        found = np.zeros((len(labels), len(names)))
        for row, label in zip(found, labels, strict=True):
            genes = genes_of(label)
            row[[position[gene] for gene in genes]] = 1 / np.sqrt(len(genes))
        return found

    return members(left) @ members(right).T


def typical_distance(vectors: np.ndarray) -> float:
    """Median distance between embeddings (n, dims) that differ.

    Raises
    ------
    ValueError
        If all are the same.
    """
    gaps = distances(vectors, vectors)[np.triu_indices(len(vectors), 1)]
    if not gaps.any():
        raise ValueError("all training perturbations have the same embedding. Pass embeddings that differ")
    return float(np.median(gaps[gaps > 0]))


def choose_kernel(
    embeddings: Embeddings, perturbations: Sequence[str], response: NDArray
) -> tuple[Kernel, NDArray, NDArray]:
    """Kernel whose settings have the greatest marginal likelihood for given responses.

    Length scale and power are chosen together. If training labels with an embedding share genes, the weight of shared
    genes is chosen next, and then length scale and power again.

    Parameters
    ----------
    embeddings
        Of the perturbed genes.
    perturbations
        Labels.
    response
        (perturbation, factor), unit variance.

    Returns
    -------
    kernel, eigenvalues, eigenvectors
        The kernel, and (perturbation,) and (perturbation, perturbation) of its matrix between the perturbations.

    Raises
    ------
    ValueError
        If all perturbations have the same embedding.
    """
    labels = [label for label in perturbations if embeddings.has(label)]
    typical = typical_distance(embeddings.of(labels))

    def diagonalized(kernel: Kernel) -> tuple[NDArray, NDArray]:
        matrix = kernel_between(perturbations, perturbations, embeddings, kernel)
        np.fill_diagonal(matrix, 1)
        eigenvalues, eigenvectors = np.linalg.eigh(matrix)
        return eigenvalues, eigenvectors

    def evidence(kernel: Kernel) -> float:
        return explained_variance(response, *diagonalized(kernel))[1]

    shapes = [Kernel(float(scale * typical), power) for scale, power in product(LENGTH_SCALES, POWERS)]
    best = max(shapes, key=evidence)
    genes = [gene for label in labels for gene in genes_of(label)]
    if len(set(genes)) < len(genes):  # labels differ, so a gene that occurs twice is shared
        best = max((replace(best, shared=weight) for weight in SHARED), key=evidence)
        best = max((replace(shape, shared=best.shared) for shape in shapes), key=evidence)
    return best, *diagonalized(best)
