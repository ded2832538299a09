"""Kernel between perturbations: one part for each source of embeddings, and one for the genes that labels share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings

JOINT, SHARED = "all at once", "shared genes"  # names of the parts that are of no single source
RELATIVE_SCALE = 0.5  # length scale to start from, in units of the typical distance
JITTER = 1e-4  # on the diagonal of a matrix that is inverted: two genes may have the same vector


@dataclass(frozen=True)
class Kernel:
    r"""Sum of powered exponential kernels, one for each source, and a part for the genes that two labels share.

    .. math:: k(p, q) = \sum_s w_s \exp\big(-(|e_{sp} - e_{sq}| / \ell_s)^a\big)
              + w_0 \exp\big(-(d_{pq} / \ell_0)^a\big)
              + w \frac{|p \cap q|}{\sqrt{|p| |q|}}, \qquad d_{pq}^2 = \sum_s v_s \frac{|e_{sp} - e_{sq}|^2}{t_s^2}

    The weights sum to one. The parts of single sources say that perturbations are alike if any source says so; the
    joint part, with the distance d, says so if all sources do. The last part says that ``A`` and ``A+B`` share whatever
    ``A`` does, also what its embeddings do not show. It is a linear kernel on which genes are perturbed. A sum of
    kernels is a kernel [1]_. A label with a gene that a source lacks has no vector there; its part of the kernel is
    completed from the other sources, see `Completion`.

    Attributes
    ----------
    weights
        Weight :math:`w_s` of each source. 0 leaves it out.
    length_scales
        Distance :math:`\ell_s` at which the correlation has fallen to 1/e, in the units of each source.
    power
        Above 0 and at most 2. With 1 the parts are Matérn-1/2 kernels, which are rough. With 2 they are squared
        exponentials, which are smooth: near one between close relatives, and sooner near zero at greater distances.
    shared
        Weight w of the last part.
    reference
        Training perturbations, from which missing parts are completed.
    auxiliary
        Length scales of the squared exponential kernels that complete the parts of other sources.
    joint
        Weight :math:`w_0` of the joint part.
    joint_scale
        Its length scale :math:`\ell_0`.
    proportions
        Shares :math:`v_s` of the sources in its distance; they sum to one. The typical distances :math:`t_s` are twice
        the auxiliary length scales.

    References
    ----------
    .. [1] Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 4.18 and §4.2.4.
    """

    weights: tuple[float, ...]
    length_scales: tuple[float, ...]
    power: float = 1.0
    shared: float = 0.0
    reference: tuple[str, ...] = ()
    auxiliary: tuple[float, ...] = ()
    joint: float = 0.0
    joint_scale: float = 1.0
    proportions: tuple[float, ...] = ()

    @property
    def source_weights(self) -> tuple[float, ...]:
        """Weight of each source, its share in the joint part included."""
        if not self.proportions:
            return self.weights
        both = zip(self.weights, self.proportions, strict=True)
        return tuple(weight + self.joint * proportion for weight, proportion in both)


class Points(NamedTuple):
    """Labels as points in the sources.

    Attributes
    ----------
    vectors
        (label, dims) sums of the vectors of their genes.
    covered
        (label, source) whether a source has all their genes.
    columns
        Columns of each source in the vectors.
    """

    vectors: NDArray[np.float32]
    covered: NDArray[np.bool_]
    columns: tuple[slice, ...]

    @classmethod
    def of(cls, labels: Sequence[str], embeddings: Embeddings) -> Points:
        """Look up the labels."""
        columns = tuple(embeddings.columns(source) for source in range(embeddings.n_sources))
        return cls(embeddings.of(labels), embeddings.covers(labels), columns)

    def take(self, rows: NDArray[np.intp]) -> Points:
        """Return some of the points."""
        return self._replace(vectors=self.vectors[rows], covered=self.covered[rows])

    def split(self, source: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the positions of the points that a source covers, and of those that it lacks."""
        return np.flatnonzero(self.covered[:, source]), np.flatnonzero(~self.covered[:, source])


class Completion(NamedTuple):
    r"""How labels with a gene that a source lacks depend on the training perturbations that it covers.

    The kernel of another view of the same objects can complete a kernel matrix whose rows are partly missing: of all
    completions, the one nearest to the other kernel, in the divergence between zero-mean normals, is

    .. math:: k(m, c) = B k(r, c), \qquad k(m, m') = B k(r, r) B' + a(m, m') - B a(r, m'), \qquad
              B = a(m, r) a(r, r)^{-1}

    for missing labels m, covered ones c, and the reference r of covered training perturbations [1]_. The auxiliary
    kernel a is the average of the kernels of the other sources. The result is scaled to a diagonal of one.

    Attributes
    ----------
    slope
        B (missing, reference).
    auxiliary
        (missing, reference) the auxiliary kernel.

    References
    ----------
    .. [1] Tsuda, Akaho & Asai (2003), The em algorithm for kernel matrix completion with auxiliary data, Journal of
       Machine Learning Research 4, 67-81.
    """

    slope: NDArray[np.float64]
    auxiliary: NDArray[np.float64]


def powered_exponential(distance: NDArray, length_scale: float, power: float) -> NDArray[np.float64]:
    """Correlation at some distances."""
    decay: NDArray[np.float64] = np.exp(-((distance / length_scale) ** power))
    return decay


def distances(left: np.ndarray, right: np.ndarray) -> NDArray[np.float64]:
    """Euclidean distances (m, n), in float64; exactly zero between equal rows."""
    from scipy.spatial.distance import cdist

    return cdist(np.asarray(left, np.float64), np.asarray(right, np.float64))


def source_distances(left: Points, right: Points, source: int) -> NDArray[np.float64]:
    """Distances (m, n) in one source."""
    columns = left.columns[source]
    return distances(left.vectors[:, columns], right.vectors[:, columns])


def joint_distances(left: Points, right: Points, kernel: Kernel) -> NDArray[np.float64]:
    """Distances (m, n) in all sources; where a source lacks a label, its vector is the mean of the source, 0."""
    scale = np.ones(left.vectors.shape[1])
    for columns, proportion, auxiliary in zip(left.columns, kernel.proportions, kernel.auxiliary, strict=True):
        scale[columns] = np.sqrt(proportion) / (auxiliary / RELATIVE_SCALE)
    return distances(left.vectors * scale, right.vectors * scale)


def kernel_between(
    left: Sequence[str], right: Sequence[str], embeddings: Embeddings, kernel: Kernel
) -> NDArray[np.float64]:
    """Kernel (m, n) between perturbations; 0 for those without an embedding."""
    return sum(parts_between(left, right, embeddings, kernel).values(), np.zeros((len(left), len(right))))


def parts_between(
    left: Sequence[str], right: Sequence[str], embeddings: Embeddings, kernel: Kernel
) -> dict[str, NDArray[np.float64]]:
    """Parts of the kernel (m, n), times their weights, by name: those of the sources, `JOINT` and `SHARED`.

    Parts of no weight are left out.
    """
    rows = [i for i, label in enumerate(left) if embeddings.has(label)]
    columns = [j for j, label in enumerate(right) if embeddings.has(label)]
    known = [left[i] for i in rows], [right[j] for j in columns]
    of_left, of_right, reference = (Points.of(labels, embeddings) for labels in (*known, kernel.reference))

    def spread(values: NDArray) -> NDArray[np.float64]:
        matrix = np.zeros((len(left), len(right)))
        matrix[np.ix_(rows, columns)] = values
        return matrix

    parts = {
        name: spread(weight * _part_of_source(of_left, of_right, reference, kernel, source))
        for source, (name, weight) in enumerate(zip(embeddings.source_names, kernel.weights, strict=True))
        if weight
    }
    if kernel.joint:
        far = joint_distances(of_left, of_right, kernel)
        parts[JOINT] = spread(kernel.joint * powered_exponential(far, kernel.joint_scale, kernel.power))
    if kernel.shared:
        parts[SHARED] = spread(kernel.shared * genes_in_common(*known))
    return parts


def _part_of_source(left: Points, right: Points, reference: Points, kernel: Kernel, source: int) -> NDArray[np.float64]:
    """Part of one source (m, n), without its weight."""

    def own(some: Points, others: Points) -> NDArray[np.float64]:
        far = source_distances(some, others, source)
        return powered_exponential(far, kernel.length_scales[source], kernel.power)

    (rows, missing_rows), (columns, missing_columns) = left.split(source), right.split(source)
    matrix = np.empty((len(left.vectors), len(right.vectors)))
    matrix[np.ix_(rows, columns)] = own(left.take(rows), right.take(columns))
    if not len(missing_rows) and not len(missing_columns):
        return matrix
    reference = reference.take(reference.split(source)[0])
    lacking = left.take(missing_rows), right.take(missing_columns)
    of_left, of_right = (complete(some, reference, kernel, source) for some in lacking)
    within = own(reference, reference)
    matrix[np.ix_(missing_rows, columns)] = of_left.slope @ own(reference, right.take(columns))
    matrix[np.ix_(rows, missing_columns)] = own(left.take(rows), reference) @ of_right.slope.T
    rest = auxiliary_kernel(*lacking, kernel, source) - of_left.slope @ of_right.auxiliary.T
    matrix[np.ix_(missing_rows, missing_columns)] = of_left.slope @ within @ of_right.slope.T + rest
    matrix[missing_rows] /= np.sqrt(variances(of_left, lacking[0], within, source))[:, None]
    matrix[:, missing_columns] /= np.sqrt(variances(of_right, lacking[1], within, source))
    return matrix


def complete(missing: Points, reference: Points, kernel: Kernel, source: int) -> Completion:
    """Say how points that a source lacks depend on a reference that it covers."""
    within = auxiliary_kernel(reference, reference, kernel, source) + JITTER * np.eye(len(reference.vectors))
    auxiliary = auxiliary_kernel(missing, reference, kernel, source)
    slope: NDArray = np.linalg.solve(within, auxiliary.T).T
    return Completion(slope, auxiliary)


def variances(completion: Completion, missing: Points, within: NDArray, source: int) -> NDArray[np.float64]:
    """Diagonal of the completed part, before it is scaled; ``within`` is the part between the reference."""
    others = np.delete(missing.covered, source, axis=1).any(axis=1)
    slope = completion.slope
    found = ((slope @ within) * slope).sum(axis=1) + others - (slope * completion.auxiliary).sum(axis=1)
    return np.where(others, found, 1.0)  # no source covers a pair of genes that are in different ones


def auxiliary_kernel(left: Points, right: Points, kernel: Kernel, source: int) -> NDArray[np.float64]:
    """Average (m, n) of the kernels of the other sources, each label over those that cover it."""
    total = np.zeros((len(left.vectors), len(right.vectors)))
    shares = []
    for points in (left, right):
        covered = points.covered.astype(float)
        covered[:, source] = 0
        shares.append(np.sqrt(covered / np.maximum(covered.sum(axis=1, keepdims=True), 1)))
    for other in range(len(left.columns)):
        if other != source:
            weight = shares[0][:, [other]] * shares[1][:, other]
            total += weight * powered_exponential(source_distances(left, right, other), kernel.auxiliary[other], 2.0)
    return total


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
    """Median distance between embeddings (n, dims) that differ; 0 if all are the same."""
    gaps = distances(vectors, vectors)[np.triu_indices(len(vectors), 1)]
    return float(np.median(gaps[gaps > 0])) if gaps.any() else 0.0
