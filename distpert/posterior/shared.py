"""Posterior draws of what all perturbations share: controls, common shift, loadings, concentrations."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert.posterior.samples import SharedDraws, shared_of_samples

if TYPE_CHECKING:
    import xarray as xr

_LEVEL, _SHIFT, _LOADING, _CONCENTRATION = range(4)  # each has random numbers of its own
MOST_BYTES = 2**29  # of draws in memory; those of one slice of the genes are kept in any case


class SharedPosterior:
    """Draws shared parameters from their normal posterior, or takes them from the draws of a Markov chain.

    All perturbations use the same draws, so that they can be compared draw by draw. Slices of the genes are kept in
    memory, the newest ones, up to a limit. Contexts have the same loadings.

    Parameters
    ----------
    parameters, samples
        As in `Posterior`.
    """

    def __init__(self, parameters: xr.Dataset, samples: xr.Dataset | None = None) -> None:
        self._parameters, self._samples = parameters, samples
        self._kept: dict[tuple[int, ...], SharedDraws] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[type, tuple[xr.Dataset, xr.Dataset | None]]:
        return type(self), (self._parameters, self._samples)  # without the draws in memory, and the lock

    def draw(self, context: int, genes: slice, num_draws: int, seed: int) -> SharedDraws:
        """Draw for one context, by position, and a slice of the genes."""
        key = (context, genes.start, genes.stop, num_draws, seed)
        with self._lock:
            if key not in self._kept:
                same = [kept.loading for other, kept in self._kept.items() if other[1:] == key[1:]]
                self._kept[key] = self._draw(context, genes, num_draws, seed, same[0] if same else None)
                while len(self._kept) > 1 and self._bytes() > MOST_BYTES:
                    del self._kept[next(iter(self._kept))]
            return self._kept[key]

    def _draw(self, context: int, genes: slice, num_draws: int, seed: int, loading: NDArray | None) -> SharedDraws:
        if self._samples is not None:
            return shared_of_samples(self._samples, context, genes, num_draws)
        return draw_normal(self._parameters, context, genes, num_draws, seed, loading)

    def _bytes(self) -> int:
        """Memory of all draws; the same array counts once."""
        arrays = {id(values): values.nbytes for kept in self._kept.values() for values in kept}
        return sum(arrays.values())


def draw_normal(
    parameters: xr.Dataset, context: int, genes: slice, num_draws: int, seed: int, loading: NDArray | None = None
) -> SharedDraws:
    """Draw from independent normals along the coordinates of each gene, if loadings are not given from before."""
    chosen = parameters.isel(context=context, gene=genes)
    value = {str(name): chosen[name].to_numpy() for name in chosen if "gene" in chosen[name].dims}
    basis = np.ascontiguousarray(value["basis"].transpose(0, 2, 1))  # (gene, direction, bin)

    def noise(purpose: int, scale: NDArray, *place: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, genes.start, purpose, *place])
        return rng.standard_normal((num_draws, *scale.shape), dtype=np.float32) * scale

    def along_bins(coordinates: NDArray) -> NDArray[np.float32]:
        """(draw, ..., gene, direction) to (draw, ..., gene, bin)."""
        by_gene = np.moveaxis(coordinates, -2, 0)
        flat = by_gene.reshape(len(by_gene), -1, by_gene.shape[-1])
        return np.moveaxis((flat @ basis).reshape(*by_gene.shape[:-1], -1), 0, -2)

    share = float(parameters["perturbed_share"][context])
    level, shift = noise(_LEVEL, value["level_scale"], context), noise(_SHIFT, value["common_scale"], context)
    control = value["control"] + along_bins(level - np.float32(share) * shift)
    if loading is None:
        loading = value["loading"] + along_bins(noise(_LOADING, value["loading_scale"]))
    return SharedDraws(
        control=control,
        base=control + value["common"] + along_bins(shift),
        loading=loading,
        concentration=np.exp(draw_log_concentration(parameters, genes, num_draws, seed)),
    )


def draw_log_concentration(parameters: xr.Dataset, genes: slice, num_draws: int, seed: int) -> NDArray[np.float32]:
    r"""Draw log κ (draw, gene), with the uncertainty of the typical κ that the normals of the genes leave out.

    The normal of a gene, with standard deviation d, is that given the typical value m. If m moves by :math:`\delta`,
    the gene moves by :math:`\delta d^2 / s^2`, with s the spread of genes.
    """
    mean, scale = (parameters[name].to_numpy() for name in ("log_concentration", "log_concentration_scale"))
    spread = float(parameters["log_concentration_spread"])
    common = np.random.default_rng([seed, _CONCENTRATION]).standard_normal((num_draws, 1), dtype=np.float32)
    own = np.random.default_rng([seed, genes.start, _CONCENTRATION]).standard_normal(
        (num_draws, len(mean[genes])), dtype=np.float32
    )
    follows = np.minimum((scale[genes] / spread) ** 2, 1) if spread > 0 else 0
    typical = np.float32(typical_scale(scale, spread))
    return (mean[genes] + follows * typical * common + scale[genes] * own).astype(np.float32)


def typical_scale(scale: NDArray, spread: float) -> float:
    r"""Posterior standard deviation of the typical log κ.

    A normal with standard deviation :math:`d_g`, under a prior with the spread s, has seen data of the precision
    :math:`d_g^{-2} - s^{-2}`, which tells about the typical value with the variance :math:`s^2` more.
    """
    if spread <= 0:
        return 0.0
    precision = np.maximum(np.maximum(scale.astype(np.float64), 1e-6) ** -2 - spread**-2, 0)
    return float(min(1 / np.sqrt((precision / (1 + spread**2 * precision)).sum() + 1e-12), 1.5))
