"""A Gaussian process over perturbations, diagonalized once.

With thousands of perturbations, only the leading eigenvectors of a kernel are known. The kernel is then taken for

    K = U diag(l) U' + r (I - U U'),    r = (n - sum(l)) / (n - len(l)),

with the r that keeps the trace, which is n because the diagonal is one. All formulas hold for it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray
from numpyro import distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import validate_sample

# By default, JAX multiplies matrices on recent GPUs in TensorFloat-32, which has only ten bits after the point.
PRECISION = jax.lax.Precision.HIGHEST
SHARES = np.linspace(0.01, 0.99, 50)  # grid on which the share of a factor is sought
GRID_STEP = SHARES[1] - SHARES[0]
BISECTIONS = 20


def remainder(eigenvalues: NDArray, n: int) -> float:
    """Eigenvalue r that stands for those that are not known, of a kernel with n points; 1 if all are known."""
    if len(eigenvalues) == n:
        return 1.0
    return max(float(n - eigenvalues.sum()) / (n - len(eigenvalues)), 0.0)


class KernelNormal(dist.Distribution):
    """Normal(0, share K + (1 - share) I), for a fixed kernel K of which eigenvectors are known, and many shares.

    The eigenvectors of K do not depend on the share. Each density therefore costs one product with U instead of a
    Cholesky factorization.

    Parameters
    ----------
    share
        (...) share of the variance that the kernel explains, between 0 and 1.
    eigenvalues, eigenvectors
        (r,) and (n, r), of the kernel matrix.
    rest
        Eigenvalue of all other directions, see `remainder`; it does not matter if r is n.
    """

    arg_constraints = {  # noqa: RUF012 (numpyro reads this class attribute)
        "share": constraints.unit_interval,
        "eigenvalues": constraints.real_vector,
        "eigenvectors": constraints.real_matrix,
        "rest": constraints.real,
    }
    support = constraints.real_vector
    reparametrized_params = ["share"]  # noqa: RUF012
    pytree_data_fields = ("share", "eigenvalues", "eigenvectors", "rest")

    def __init__(
        self,
        share: ArrayLike,
        eigenvalues: ArrayLike,
        eigenvectors: ArrayLike,
        rest: ArrayLike = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.share, self.eigenvalues, self.eigenvectors = map(jnp.asarray, (share, eigenvalues, eigenvectors))
        self.rest = jnp.asarray(rest, self.eigenvalues.dtype)
        super().__init__(jnp.shape(share), jnp.shape(eigenvectors)[:1], validate_args=validate_args)

    @property
    def spectrum(self) -> Array:
        """(..., r) eigenvalues of the covariance."""
        share = self.share[..., None]
        return share * self.eigenvalues + (1 - share)

    @property
    def n_rest(self) -> int:
        """Number of directions whose eigenvectors are not known."""
        return int(self.eigenvectors.shape[0] - self.eigenvectors.shape[1])

    def expected_log_prob(self, mean: Array, variance: Array) -> Array:
        """E log p(x) for independent x_i ~ Normal(mean_i, variance_i), both (..., n)."""
        spectrum = self.spectrum
        rotated = jnp.matmul(mean, self.eigenvectors, precision=PRECISION)
        # Diagonal of the inverse covariance.
        precision = jnp.matmul(1 / spectrum, (self.eigenvectors**2).T, precision=PRECISION)
        quadratic, log_det = (rotated**2 / spectrum).sum(-1), jnp.log(spectrum).sum(-1)
        if self.n_rest:
            other = self.share * self.rest + 1 - self.share
            precision = precision + (1 - (self.eigenvectors**2).sum(axis=1)) / other[..., None]
            quadratic = quadratic + ((mean**2).sum(-1) - (rotated**2).sum(-1)) / other
            log_det = log_det + self.n_rest * jnp.log(other)
        quadratic = quadratic + (variance * precision).sum(-1)
        return -0.5 * (quadratic + log_det + mean.shape[-1] * np.log(2 * np.pi))

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log density of ``value`` (..., n)."""
        return self.expected_log_prob(value, jnp.zeros_like(value))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw (..., n)."""
        shape = sample_shape + self.batch_shape
        if not self.n_rest:
            noise = dist.Normal().sample(key, shape + self.event_shape)
            return jnp.matmul(noise * jnp.sqrt(self.spectrum), self.eigenvectors.T, precision=PRECISION)
        noise = dist.Normal().sample(key, shape + self.event_shape)
        other = jnp.sqrt(self.share * self.rest + 1 - self.share)[..., None]
        rotated = jnp.matmul(noise, self.eigenvectors, precision=PRECISION)
        along = rotated * (jnp.sqrt(self.spectrum) - other)
        return other * noise + jnp.matmul(along, self.eigenvectors.T, precision=PRECISION)


@kl_divergence.register(dist.Independent, KernelNormal)
def _kl_independent_normal(q: dist.Independent, p: KernelNormal) -> Array:
    """KL divergence from independent normals, in closed form: its gradient has no sampling noise."""
    normal = q.base_dist
    entropy = (0.5 * jnp.log(2 * jnp.pi * jnp.e * normal.variance)).sum(-1)
    return -entropy - p.expected_log_prob(normal.mean, normal.variance)


def predict_normal(
    share: NDArray,
    eigenvalues: NDArray,
    eigenvectors: NDArray,
    cross: NDArray,
    mean: NDArray,
    scale: NDArray,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Mean and standard deviation of z at new points, if z at the training points is itself uncertain.

    With :math:`C = \rho K + (1 - \rho) I` and :math:`A = \rho K_* C^{-1}`, for z ~ Normal(m, diag(s²)) at the
    training points,

    .. math:: E z_* = A m, \qquad \operatorname{var} z_* = 1 - \rho \operatorname{diag}(A K_*') + A^2 s^2 .

    Parameters
    ----------
    share
        (factor,) shares ρ.
    eigenvalues, eigenvectors
        (r,) and (n, r), of the kernel K at the training points; its diagonal is one.
    cross
        (m, n) kernel between new and training points K_*.
    mean, scale
        (n, factor) posterior means m and standard deviations s.

    Returns
    -------
    mean, scale
        (m, factor), the marginal of each new point.
    """
    means, scales = [], []
    for k, rho in enumerate(share):
        weights = rho * solve(rho, eigenvalues, eigenvectors, cross.T).T
        variance = 1 - rho * (weights * cross).sum(axis=1) + weights**2 @ scale[:, k] ** 2
        means.append(weights @ mean[:, k])
        scales.append(np.sqrt(np.maximum(variance, 0)))
    return np.stack(means, axis=1), np.stack(scales, axis=1)


def solve(share: float, eigenvalues: NDArray, eigenvectors: NDArray, values: NDArray) -> NDArray[np.float64]:
    """C⁻¹ times values (n, ...), for C = share K + (1 - share) I. Arguments as in `predict_normal`."""
    n, known = len(eigenvectors), share * eigenvalues + (1 - share)
    shape = (-1, *[1] * (values.ndim - 1))
    rotated = eigenvectors.T @ values
    if len(known) == n:
        whole: NDArray[np.float64] = eigenvectors @ (rotated / known.reshape(shape))
        return whole
    other = share * remainder(eigenvalues, n) + 1 - share
    part: NDArray[np.float64] = values / other + eigenvectors @ (rotated * (1 / known - 1 / other).reshape(shape))
    return part


def precision_between(
    share: float, eigenvalues: NDArray, eigenvectors: NDArray, rows: Sequence[int], columns: Sequence[int]
) -> NDArray[np.float64]:
    """Entries (row, column) of C⁻¹, as in `solve`."""
    n, known = len(eigenvectors), share * eigenvalues + (1 - share)
    left, right = eigenvectors[rows], eigenvectors[columns]
    if len(known) == n:
        whole: NDArray[np.float64] = (left / known) @ right.T
        return whole
    other = share * remainder(eigenvalues, n) + 1 - share
    same = np.equal.outer(np.asarray(rows), np.asarray(columns))
    part: NDArray[np.float64] = same / other + (left * (1 / known - 1 / other)) @ right.T
    return part


def leave_one_out(
    share: NDArray, eigenvalues: NDArray, eigenvectors: NDArray, mean: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Mean and variance of each training point, predicted from the others.

    .. math::
        \mu_{-p} = m_p - \frac{[C^{-1} m]_p}{[C^{-1}]_{pp}}, \qquad \sigma_{-p}^2 = 1 / [C^{-1}]_{pp}

    for z known exactly, equal to m (Rasmussen & Williams 2006, eq. 5.12). Arguments as in `predict_normal`.

    Returns
    -------
    mean, variance
        (n, factor).
    """
    n, spectrum = len(eigenvectors), share[:, None] * eigenvalues + 1 - share[:, None]
    precision = ((1 / spectrum) @ (eigenvectors**2).T).T
    rotated = eigenvectors.T @ mean
    weighted = eigenvectors @ (rotated / spectrum.T)
    if len(eigenvalues) < n:
        other = share * remainder(eigenvalues, n) + 1 - share
        precision = precision + (1 - (eigenvectors**2).sum(axis=1))[:, None] / other
        weighted = weighted + (mean - eigenvectors @ rotated) / other
    return mean - weighted / precision, 1 / precision


def leave_out(
    share: NDArray,
    eigenvalues: NDArray,
    eigenvectors: NDArray,
    mean: NDArray,
    chosen: Sequence[int],
    without: Sequence[Sequence[int]],
) -> NDArray[np.float64]:
    r"""Predict training points without themselves and others: `leave_one_out` for whole sets.

    .. math:: \mu_{-S} = m_S - \big([C^{-1}]_{SS}\big)^{-1} [C^{-1} m]_S

    Parameters
    ----------
    share, eigenvalues, eigenvectors, mean
        As in `leave_one_out`.
    chosen
        The points to predict.
    without
        For each of them the set S of points to leave out, which contains it.

    Returns
    -------
    ndarray, shape (chosen, factor)
    """
    if all(len(left_out) == 1 for left_out in without):
        return leave_one_out(share, eigenvalues, eigenvectors, mean)[0][list(chosen)]
    predicted = np.empty((len(chosen), mean.shape[1]))
    for k, rho in enumerate(share):
        weighted = solve(rho, eigenvalues, eigenvectors, mean[:, k])
        for i, (point, left_out) in enumerate(zip(chosen, without, strict=True)):
            precision = precision_between(rho, eigenvalues, eigenvectors, left_out, left_out)
            off = np.linalg.solve(precision, weighted[left_out])
            predicted[i, k] = mean[point, k] - off[list(left_out).index(point)]
    return predicted


def explained_variance(
    response: NDArray, eigenvalues: NDArray, eigenvectors: NDArray
) -> tuple[NDArray[np.float64], float]:
    """Share of each factor's variance that a kernel explains, by maximum marginal likelihood.

    Under z ~ Normal(0, a (ρ K + (1 − ρ) I)), with K = U diag(l) U', log p(z) is a sum over the entries of U'z. Each ρ
    of a grid therefore costs almost nothing (Rasmussen & Williams 2006, §5.4.1). The amplitude a has its most likely
    value: with a long length scale, responses vary less about their mean than the kernel says.

    Parameters
    ----------
    response
        (perturbation, factor).
    eigenvalues, eigenvectors
        (eigen,) and (perturbation, eigen), of K.

    Returns
    -------
    share, log_evidence
        (factor,) shares, and the sum over factors of the greatest log p(z), without constants.
    """
    share, evidence, _ = _best_share(response, eigenvalues, eigenvectors)
    return share, float(evidence.sum())


def kernel_evidence(response: NDArray, kernel: NDArray, weight: NDArray) -> tuple[float, NDArray[np.float64]]:
    r"""Log marginal likelihood of `explained_variance`, weighted by factor, and its gradient by entries of the kernel.

    At the most likely share and amplitude of each factor, the gradient is as if they were fixed (envelope theorem):

    .. math:: \frac{\partial}{\partial K} \sum_k \omega_k \log p_k = \frac12 \sum_k \omega_k \rho_k
              \Big(\frac{1}{a_k} C_k^{-1} z_k z_k' C_k^{-1} - C_k^{-1}\Big)

    (Rasmussen & Williams 2006, eq. 5.9).

    Parameters
    ----------
    response
        (perturbation, factor).
    kernel
        (perturbation, perturbation), symmetric.
    weight
        (factor,) weights ω.

    Returns
    -------
    log_evidence, gradient
        The sum over factors, and (perturbation, perturbation).
    """
    eigenvalues, eigenvectors = np.linalg.eigh(kernel)
    eigenvalues = np.maximum(eigenvalues, 0)
    rotated = eigenvectors.T @ response
    share, evidence, amplitude = _refine_share(
        _best_share(response, eigenvalues, eigenvectors)[0], eigenvalues, rotated
    )
    spectrum = share * eigenvalues[:, None] + 1 - share
    scaled = rotated / spectrum * np.sqrt(weight * share / amplitude)
    inner = scaled @ scaled.T - np.diag((weight * share / spectrum).sum(axis=1))
    return float(weight @ evidence), 0.5 * eigenvectors @ inner @ eigenvectors.T


def _best_share(
    response: NDArray, eigenvalues: NDArray, eigenvectors: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Share of greatest likelihood, its log-likelihood without constants, and its amplitude, for each factor."""
    n, n_rest = len(eigenvectors), len(eigenvectors) - len(eigenvalues)
    spectrum = SHARES[:, None] * eigenvalues + (1 - SHARES[:, None])
    rotated = (eigenvectors.T @ response) ** 2
    squares, log_det = (1 / spectrum) @ rotated, np.log(spectrum).sum(axis=1, keepdims=True)
    if n_rest:
        other = (SHARES * remainder(eigenvalues, n) + 1 - SHARES)[:, None]
        squares = squares + ((response**2).sum(axis=0) - rotated.sum(axis=0)) / other
        log_det = log_det + n_rest * np.log(other)
    amplitude = squares / n
    evidence = -0.5 * (n * np.log(amplitude) + log_det)
    best, factor = evidence.argmax(axis=0), np.arange(response.shape[1])
    return SHARES[best], evidence[best, factor], amplitude[best, factor]


def _refine_share(
    share: NDArray, eigenvalues: NDArray, rotated: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Improve the best shares of a grid by bisection, which makes their likelihood smooth in the kernel."""

    def terms(rho: NDArray) -> tuple[NDArray, NDArray]:
        spectrum = rho * eigenvalues[:, None] + 1 - rho
        return spectrum, (rotated**2 / spectrum).mean(axis=0)

    low, high = np.maximum(share - GRID_STEP, SHARES[0]), np.minimum(share + GRID_STEP, SHARES[-1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        spectrum, amplitude = terms(middle)
        by_share = (eigenvalues[:, None] - 1) / spectrum
        rises = (rotated**2 / spectrum * by_share).sum(axis=0) / amplitude > by_share.sum(axis=0)
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    share = (low + high) / 2
    spectrum, amplitude = terms(share)
    return share, -0.5 * (len(eigenvalues) * np.log(amplitude) + np.log(spectrum).sum(axis=0)), amplitude
