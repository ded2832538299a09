"""Which perturbations should respond alike: a kernel on their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings import Embeddings
from distpert.gaussian_process import explained_variance

# Length scales that are tried, in units of the median distance between training perturbations, with each power.
LENGTH_SCALES = (0.25, 0.35, 0.42, 0.5, 0.6, 0.7, 1.0, 1.4, 2.0)
POWERS = (1.0, 2.0)


@dataclass(frozen=True)
class Kernel:
    """Powered exponential kernel k(e, e') = exp(-(|e - e'| / length_scale)^power).

    Attributes
    ----------
    length_scale
        Distance at which the correlation has fallen to 1/e, in the units of the embeddings.
    power
        Greater than 0 and at most 2. With 1 it is the Matérn-1/2 kernel, rough; with 2 the squared exponential, smooth,
        which is near one between close relatives and falls to nothing sooner beyond.

    References
    ----------
    Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 4.18.
    """

    length_scale: float
    power: float = 1.0

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Correlations (m, n) between embeddings ``left`` (m, dims) and ``right`` (n, dims)."""
        return np.exp(-((distances(left, right) / self.length_scale) ** self.power))


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Euclidean distances (m, n), in float64; exactly zero between equal rows."""
    from scipy.spatial.distance import cdist

    return cdist(np.asarray(left, np.float64), np.asarray(right, np.float64))


def kernel_between(
    left: Sequence[str], right: Sequence[str], embeddings: Embeddings, kernel: Kernel
) -> NDArray[np.float64]:
    """Kernel between perturbations; one without an embedding has none with any other."""
    matrix = np.zeros((len(left), len(right)))
    rows = [i for i, label in enumerate(left) if embeddings.has(label)]
    columns = [j for j, label in enumerate(right) if embeddings.has(label)]
    known = kernel(embeddings.of([left[i] for i in rows]), embeddings.of([right[j] for j in columns]))
    matrix[np.ix_(rows, columns)] = known
    return matrix


def choose_kernel(
    embeddings: Embeddings, perturbations: Sequence[str], response: NDArray
) -> tuple[Kernel, NDArray, NDArray, NDArray]:
    """Kernel whose length scale and power have the greatest marginal likelihood for given responses.

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
    kernel, eigenvalues, eigenvectors, share
        The kernel; (perturbation,) and (perturbation, perturbation) of its matrix between the perturbations; and the
        share of each factor's variance that it explains, (factor,).
    """
    known = embeddings.of([label for label in perturbations if embeddings.has(label)])
    gaps = distances(known, known)[np.triu_indices(len(known), 1)]
    if not gaps.any():
        raise ValueError("all training perturbations have the same embedding: it cannot tell them apart")
    typical = np.median(gaps[gaps > 0])
    best = None
    for scale, power in product(LENGTH_SCALES, POWERS):
        kernel = Kernel(float(scale * typical), power)
        matrix = kernel_between(perturbations, perturbations, embeddings, kernel)
        np.fill_diagonal(matrix, 1)
        eigenvalues, eigenvectors = np.linalg.eigh(matrix)
        share, evidence = explained_variance(response, eigenvalues, eigenvectors)
        if best is None or evidence > best[0]:
            best = evidence, kernel, eigenvalues, eigenvectors, share
    assert best is not None
    return best[1:]
