"""Shifts of the means of all genes, nearly linear in the response: a few numbers stand for all genes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distpert.predictions.draws import softmax

BLOCK_VALUES = 2**23  # probabilities that stand in memory at a time


@dataclass(frozen=True, eq=False)
class LinearShifts:
    r"""Shifts of the mean expression from control, in units of the control cells' standard deviation.

    To first order in the response z they are

    .. math:: s_{cg}(z) = \frac{1}{\sigma_{cg}} \big(\mu_{cg}(\bar z) - m_{cg} + J_{cg} (z - \bar z)\big),
              \qquad J_{cgk} = \sum_b x_{gb} \frac{\partial \pi_{cgb}}{\partial z_k}

    with the means m and standard deviations σ of the controls. Squared sizes and inner products are then forms of z,
    whose coefficients are summed over contexts and genes once: draws of thousands of perturbations cost no more for
    thousands of genes than for ten. What the linear form misses is corrected at the mean of the draws of each
    perturbation, where all histograms are computed once: its sizes by a factor, its similarities by a difference.

    Attributes
    ----------
    start
        (context, gene) linear shifts at z = 0.
    slope
        (context, gene, factor) derivatives.
    noise
        (context, gene, factor) posterior variances of the derivatives, from those of the loadings.
    logits, loading
        (context, gene, bin) and (factor, gene, bin): logits of the histograms at z = 0, and what a response adds.
    centers, mean, unit
        (gene, bin) bin centers x; (context, gene) means of the controls; and one over their standard deviations, 0 for
        constant genes.
    """

    start: NDArray[np.float64]
    slope: NDArray[np.float64]
    noise: NDArray[np.float64]
    logits: NDArray[np.float32]
    loading: NDArray[np.float32]
    centers: NDArray[np.float32]
    mean: NDArray[np.float64]
    unit: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        control: NDArray,
        common: NDArray,
        loading: NDArray,
        loading_scale: NDArray,
        basis: NDArray,
        centers: NDArray,
        at: NDArray,
    ) -> LinearShifts:
        r"""Expand about the response ``at`` (factor,).

        Parameters
        ----------
        control
            (context, gene, bin) logits of the control histograms.
        common
            (context, gene, bin) common shift.
        loading
            (factor, gene, bin) loadings.
        loading_scale, basis
            (factor, gene, direction) posterior standard deviations of the loadings along the directions (gene, bin,
            direction).
        centers
            (gene, bin) bin centers x.
        at
            The response :math:`\bar z`.
        """
        x = centers.astype(np.float64)
        reference = softmax(control.astype(np.float64))
        mean = (reference * x).sum(axis=-1)
        spread = np.sqrt((reference * (x - mean[..., None]) ** 2).sum(axis=-1))
        unit = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        probs = softmax((control + common).astype(np.float64) + np.tensordot(at, loading, axes=1))
        there = (probs * x).sum(axis=-1)
        lever = probs * (x - there[..., None]) * unit[..., None]  # derivative of the mean by the logits
        slope = np.einsum("cgb,kgb->cgk", lever, loading, optimize=True)
        along = np.einsum("cgb,gbj->cgj", lever, basis, optimize=True)
        noise = np.einsum("cgj,kgj->cgk", along**2, loading_scale.astype(np.float64) ** 2, optimize=True)
        start = (there - mean) * unit - slope @ at
        logits, loading, single = (array.astype(np.float32) for array in (control + common, loading, centers))
        return cls(start, slope, noise, logits, loading, single, mean, unit)

    def sizes(self, response: NDArray[np.floating], own: NDArray[np.integer]) -> NDArray[np.float64]:
        r"""Root mean squares of the shifts over contexts and genes (draw, label).

        Parameters
        ----------
        response
            (draw, label, factor).
        own
            (label, position) genes that the labels perturb, which do not count; the number of genes fills up.
        """
        typical, found = response.mean(axis=0), self._sizes(response, own, noisy=True)
        linear = self._sizes(typical[None], own, noisy=False)[0]
        exact = np.empty(len(typical))
        for part, shift in self._at(typical):
            for row, genes in enumerate(own[part]):
                shift[row, :, genes[genes < shift.shape[2]]] = 0
            exact[part] = np.sqrt((shift**2).sum(axis=(1, 2)) / self._n_counted(own[part]))
        return found * np.divide(exact, linear, out=np.ones_like(exact), where=linear > 0)

    def similarities(self, response: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
        """Cosines (draw, label) of the shifts of some genes with wanted ones.

        ``target`` is (context, gene), NaN for genes that do not count.
        """
        counted = np.isfinite(target)
        wanted = np.where(counted, target, 0)
        size = np.sqrt((wanted**2).sum())
        typical = response.mean(axis=0)
        exact = np.empty(len(typical))
        for part, shift in self._at(typical):
            of_shift = np.sqrt((shift**2 * counted).sum(axis=(1, 2)))
            exact[part] = (shift * wanted).sum(axis=(1, 2)) / np.maximum(of_shift * size, np.finfo(np.float32).tiny)
        off = exact - self._cosines(typical[None], wanted, counted, noisy=False)[0]
        return np.clip(self._cosines(response, wanted, counted, noisy=True) + off, -1, 1)

    def shifts(self, response: NDArray[np.floating]) -> NDArray[np.float64]:
        """Exact shifts (label, context, gene) at responses (label, factor)."""
        return np.concatenate([shift for _, shift in self._at(response)])

    def _at(self, response: NDArray[np.floating]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield exact shifts (label, context, gene) of some labels at a time."""
        step = max(1, BLOCK_VALUES // self.logits.size)
        flat = self.loading.reshape(len(self.loading), -1)
        for start in range(0, len(response), step):
            part = slice(start, min(start + step, len(response)))
            added = (response[part].astype(np.float32) @ flat).reshape(-1, 1, *self.loading.shape[1:])
            probs = softmax(added + self.logits)
            means = np.einsum("lcgb,gb->lcg", probs, self.centers, optimize=True)
            yield part, (means - self.mean) * self.unit

    def _n_counted(self, own: NDArray[np.integer]) -> NDArray[np.integer]:
        n_contexts, n_genes, _ = self.slope.shape
        return np.maximum(n_contexts * (n_genes - (own < n_genes).sum(axis=1)), 1)

    def _sizes(self, response: NDArray[np.floating], own: NDArray[np.integer], *, noisy: bool) -> NDArray[np.float64]:
        n_genes = self.slope.shape[1]
        total = self._squares(response, np.ones(self.start.shape), noisy)
        for position in range(own.shape[1]):
            measured = np.flatnonzero(own[:, position] < n_genes)
            gene, of_label = own[measured, position], response[:, measured]
            shift = self.start[:, None, gene] + np.einsum("dlk,clk->cdl", of_label, self.slope[:, gene])
            total[:, measured] -= (shift**2).sum(axis=0)
            if noisy:
                total[:, measured] -= np.einsum("dlk,clk->dl", of_label**2, self.noise[:, gene])
        return np.sqrt(np.maximum(total, 0) / self._n_counted(own))

    def _cosines(self, response: NDArray, wanted: NDArray, counted: NDArray, *, noisy: bool) -> NDArray[np.float64]:
        inner = (wanted * self.start).sum() + response @ np.einsum("cg,cgk->k", wanted, self.slope)
        size = np.sqrt(np.maximum(self._squares(response, counted.astype(np.float64), noisy), 0) * (wanted**2).sum())
        cosines: NDArray[np.float64] = inner / np.maximum(size, np.finfo(np.float32).tiny)
        return cosines

    def _squares(self, response: NDArray[np.floating], counted: NDArray, noisy: bool) -> NDArray[np.float64]:
        """Sum squares over contexts and genes (draw, label); ``counted`` is (context, gene)."""
        constant = (counted * self.start**2).sum()
        linear = 2 * np.einsum("cg,cg,cgk->k", counted, self.start, self.slope, optimize=True)
        square = np.einsum("cg,cgk,cgl->kl", counted, self.slope, self.slope, optimize=True)
        if noisy:
            square[np.diag_indices_from(square)] += np.einsum("cg,cgk->k", counted, self.noise)
        squares: NDArray[np.float64] = constant + response @ linear + ((response @ square) * response).sum(axis=-1)
        return squares
