"""Baselines that regress the shift of the mean on the embedding of the perturbation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count
from distpert.baselines.predictor import LabelPredictor
from distpert.baselines.shares import TrainingShares, check_training
from distpert.embeddings.sources import EmbeddingSources
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.model.kernels import distances
from distpert.training.checks import check_embedded

# From almost no regularization to almost no slope, for vectors of length one.
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4)
N_COMPONENTS = 20
LENGTH_SCALE_BOUNDS = (0.05, 20.0)  # in units of the median distance between training perturbations
VARIANCE_BOUNDS = (1e-4, 1e2)  # in units of the mean square of the components


@dataclass(frozen=True)
class Ridge:
    r"""Ridge regression from the embedding e to the shift of the mean from control, for all genes.

    .. math::
        \hat\mu_{pc} = \mu^\text{ctrl}_c + \bar\delta_c + W \tilde e_p, \qquad
        W = \operatorname{argmin} \sum_q \lVert \delta_q - W \tilde e_q \rVert^2 + \lambda \lVert W \rVert^2

    δ̄_c is the average shift of training perturbations in context c. δ_q is the shift of perturbation q minus that
    average, then averaged over contexts and centered over training perturbations. ẽ is the embedding, for a pair the
    sum, scaled to length one and centered over training perturbations. All genes share one λ: the value with the least
    squared error when each training perturbation is left out in turn. Predicts means only.

    Training perturbations without an embedding count in the average shift, but not in the regression.

    Parameters
    ----------
    penalties : tuple of float
        Values of λ to try.

    Raises
    ------
    ValueError
        If there is no penalty, or one is not above 0.

    See Also
    --------
    distpert.baselines.GaussianProcess, distpert.baselines.MeanNetwork

    References
    ----------
    In the manner of GenePert (Chen & Zou 2024), which regresses on text embeddings of genes.

    Examples
    --------
    >>> ridge = distpert.baselines.Ridge().fit(histograms, embeddings)  # doctest: +SKIP
    >>> ridge.predict("NANOG").moments()["mean"]  # doctest: +SKIP
    """

    name: ClassVar[str] = "ridge"
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        if not self.penalties or not all(0 < penalty < np.inf for penalty in self.penalties):
            raise ValueError(f"penalties must be one or more numbers above 0, not {self.penalties}")

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Choose the penalty and regress; see `Baseline.fit`.

        Raises
        ------
        ValueError
            If a context has no control cells, or fewer than 3 training perturbations have an embedding.

        Warns
        -----
        UserWarning
            If training perturbations have no embedding. The warning names them.

        Examples
        --------
        >>> ridge = distpert.baselines.Ridge(penalties=(1.0, 10.0)).fit(histograms, embeddings)  # doctest: +SKIP
        >>> ridge.predict(["NANOG", "SOX2"], context="5").moments()["mean"]  # doctest: +SKIP
        """
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import Normalizer

        problem = _shifts_to_regress(histograms, embeddings)
        # The intercept is zero, but must be fitted again without each perturbation that is left out. With more
        # dimensions than perturbations, centered data would reveal the one that is left out.
        model = make_pipeline(Normalizer(), RidgeCV(alphas=list(self.penalties)))
        return problem.predictor(self.name, model.fit(problem.vectors, problem.shifts).predict)


@dataclass(frozen=True)
class GaussianProcess:
    r"""Gaussian-process regression from the embedding e to the shift of the mean from control, for all genes.

    .. math::
        \hat\mu_{pc} = \mu^\text{ctrl}_c + \bar\delta_c + k_p^\top (K + \sigma^2 I)^{-1} \delta, \qquad
        k(e, e') = a \exp\!\big(-\tfrac{1}{2\ell^2} \lVert e - e' \rVert^2\big)

    with δ as in `Ridge`. The kernel is the same for all genes. a, ℓ and σ² maximize the marginal likelihood of the
    leading principal components of δ (Rasmussen & Williams 2006, eqs. 2.25, 5.8); the other components are mostly noise
    from the sampling of cells. Predicts means only.

    Training perturbations without an embedding count in the average shift, but not in the regression.

    Parameters
    ----------
    n_components : int
        Number of principal components from which the kernel is chosen.

    Raises
    ------
    ValueError
        If ``n_components`` is below 1.

    See Also
    --------
    distpert.baselines.Ridge, distpert.baselines.MeanNetwork

    References
    ----------
    The Gaussian-process baseline of Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> process = distpert.baselines.GaussianProcess().fit(histograms, embeddings)  # doctest: +SKIP
    >>> process.predict("NANOG").moments()["mean"]  # doctest: +SKIP
    """

    name: ClassVar[str] = "gaussian_process"
    n_components: int = N_COMPONENTS

    def __post_init__(self) -> None:
        check_count("n_components", self.n_components)

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> LabelPredictor:
        """Choose the kernel and condition on the training shifts; see `Baseline.fit`.

        Raises
        ------
        ValueError
            If a context has no control cells, fewer than 3 training perturbations have an embedding, or all embeddings
            are the same.

        Warns
        -----
        UserWarning
            If training perturbations have no embedding. The warning names them.

        Examples
        --------
        >>> process = distpert.baselines.GaussianProcess(n_components=10).fit(histograms, embeddings)  # doctest: +SKIP
        >>> process.predict(["NANOG", "SOX2"], context="5").moments()["mean"]  # doctest: +SKIP
        """
        from sklearn.gaussian_process import GaussianProcessRegressor

        problem = _shifts_to_regress(histograms, embeddings)
        kernel = _choose_kernel(problem.vectors, _leading_components(problem.shifts, self.n_components))
        model = GaussianProcessRegressor(kernel, optimizer=None)
        return problem.predictor(self.name, model.fit(problem.vectors, problem.shifts).predict)


@dataclass(frozen=True, eq=False)
class _Regression:
    """The shifts of training perturbations and the embeddings that they are regressed on.

    Attributes
    ----------
    vectors : ndarray, shape (perturbation, dims)
        Embeddings of the training perturbations that have one.
    shifts : ndarray, shape (perturbation, gene)
        Their shifts of the mean, minus the average of each context, averaged over contexts; centered.
    average : ndarray, shape (context, gene)
        Mean of the controls, plus the average shift of all training perturbations.
    """

    histograms: Histograms
    embeddings: Embeddings
    vectors: NDArray[np.float64]
    shifts: NDArray[np.float64]
    average: NDArray[np.float64]

    def predictor(self, name: str, predict: Callable[[NDArray], NDArray]) -> LabelPredictor:
        """Predictor of means, from a function of embeddings (label, dims) to shifts (label, gene)."""
        return LabelPredictor(name, self.histograms, self.embeddings, partial(self.of_label, predict), "means")

    def of_label(self, predict: Callable[[NDArray], NDArray], label: str) -> NDArray[np.float64]:
        """Means (context, gene)."""
        vector = self.embeddings.of([label]).astype(np.float64)
        return self.average + predict(vector)[0]


def _shifts_to_regress(histograms: Histograms, embeddings: EmbeddingSources) -> _Regression:
    embeddings = check_training(histograms, embeddings)
    others = "left out of the regression, but counted in the average shift"
    check_embedded(histograms.perturbations, embeddings, others=others, stacklevel=4)
    known = [label for label in histograms.perturbations if embeddings.has(label)]
    shares = TrainingShares(histograms)
    shifts = {label: shares.mean_shift(label) for label in histograms.perturbations}
    average = np.mean(list(shifts.values()), axis=0)
    control = (shares.control * histograms.centers.to_numpy()).sum(axis=-1)
    known_shifts = np.stack([(shifts[label] - average).mean(axis=0) for label in known])
    return _Regression(
        histograms,
        embeddings,
        embeddings.of(known).astype(np.float64),
        known_shifts - known_shifts.mean(axis=0),
        control + average,
    )


def _leading_components(shifts: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Principal components (perturbation, component), with a mean square of one."""
    left, singular, _ = np.linalg.svd(shifts, full_matrices=False)
    components = (left * singular)[:, :number]
    scale = np.sqrt((components**2).mean())
    return components / scale if scale > 0 else components


def _choose_kernel(vectors: NDArray[np.float64], components: NDArray[np.float64]) -> Any:
    """Kernel with the greatest marginal likelihood of the components, which share it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    gaps = distances(vectors, vectors)[np.triu_indices(len(vectors), 1)]
    if not gaps.any():
        raise ValueError("all training perturbations have the same embedding. Pass embeddings that differ")
    typical = float(np.median(gaps[gaps > 0]))
    low, high = LENGTH_SCALE_BOUNDS
    kernel = ConstantKernel(0.5, VARIANCE_BOUNDS) * RBF(typical, (low * typical, high * typical))
    with warnings.catch_warnings():
        # A value at its bound is an answer: there is no noise, or the embedding predicts nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel + WhiteKernel(0.5, VARIANCE_BOUNDS)).fit(vectors, components)
    return model.kernel_
