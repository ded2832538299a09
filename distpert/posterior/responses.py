"""Posterior draws of responses and on-target tilts, for training and unseen perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.model.kernels import Kernel, kernel_between
from distpert.posterior.unseen import KernelEigen, Unseen


class DrawnResponses(NamedTuple):
    """Draws of the responses and tilts of some labels.

    Attributes
    ----------
    response
        (draw, label, factor) latent responses.
    on_target
        (draw, label, tilt) on-target tilts.
    inactive
        (draw, label) whether the perturbation does nothing, whatever its response and tilt.
    """

    response: NDArray[np.float32]
    on_target: NDArray[np.float32]
    inactive: NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class Responses:
    """Distribution of the responses and tilts of all perturbations.

    Attributes
    ----------
    perturbations
        Training perturbations.
    parameters
        ``response``, ``response_scale`` (perturbation, factor), ``on_target``, ``on_target_scale`` (perturbation,
        tilt), ``tilt_mean`` and ``tilt_scale`` (tilt,), in double precision.
    embeddings, kernel, eigen
        Embeddings, the kernel, and its eigenvalues and eigenvectors between training perturbations.
    unseen
        Distribution of the responses of unseen perturbations.
    seen
        (perturbation, factor) posterior means and standard deviations of responses in training.
    inactive
        (perturbation,) probability of each training perturbation to do nothing.
    """

    perturbations: tuple[str, ...]
    parameters: Mapping[str, NDArray[np.float64]]
    embeddings: Embeddings
    kernel: Kernel
    eigen: KernelEigen
    unseen: Unseen
    seen: tuple[NDArray[np.float64], NDArray[np.float64]]
    inactive: NDArray[np.float64]

    def draw(self, labels: Sequence[str], num_draws: int, seed: int) -> DrawnResponses:
        """Draw for each label on its own."""
        n_factors, n_tilts = self.parameters["response"].shape[1], len(self.parameters["tilt_mean"])
        response = np.empty((num_draws, len(labels), n_factors), np.float32)
        on_target = np.empty((num_draws, len(labels), n_tilts), np.float32)
        inactive = np.zeros((num_draws, len(labels)), bool)
        row_of = {label: row for row, label in enumerate(self.perturbations)}
        predicted = self.predict_unseen([label for label in labels if label not in row_of])
        for i, label in enumerate(labels):
            rng = np.random.default_rng([seed, crc32(label.encode())])
            if label in predicted:
                response[:, i] = self.unseen.draw(rng, *predicted[label], num_draws)
                mean, scale = self.parameters["tilt_mean"], self.parameters["tilt_scale"]
            else:
                row = row_of[label]
                mean, scale = self.seen
                response[:, i] = normal(rng, mean[row], scale[row], num_draws)
                mean, scale = self.parameters["on_target"][row], self.parameters["on_target_scale"][row]
                chosen = np.random.default_rng([seed, crc32(label.encode()), 1])
                inactive[:, i] = chosen.random(num_draws) < self.inactive[row]
            on_target[:, i] = normal(rng, mean, scale, num_draws)
        return DrawnResponses(response, on_target, inactive)

    def predict_unseen(self, labels: Sequence[str]) -> dict[str, tuple[NDArray, NDArray, float]]:
        """Predict mean and standard deviation (factor,) of each unseen label at strength one, and its strength."""
        cross = kernel_between(labels, self.perturbations, self.embeddings, self.kernel)
        known = self.parameters["response"], self.parameters["response_scale"]
        mean, scale = self.unseen.predict(*known, self.eigen, cross)
        n_genes = np.array([len(genes_of(label)) for label in labels], np.int64)
        strengths = self.unseen.predict_strengths(self.eigen, cross, n_genes)
        return dict(zip(labels, zip(mean, scale, strengths.tolist(), strict=True), strict=True))


def normal(
    rng: np.random.Generator, mean: NDArray[np.float64], scale: NDArray[np.float64], num_draws: int
) -> NDArray[np.float64]:
    """Draw independent normals (draw, value)."""
    return mean + scale * rng.standard_normal((num_draws, len(mean)))
