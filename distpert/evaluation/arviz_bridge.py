"""The bridge to ArviZ: trees that the installed version reads, and leave-one-out over perturbations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert._shared.labels import listed
from distpert.histograms.observed import observed_cells
from distpert.model.gaussian_process import leave_one_out
from distpert.predictions.likelihood import log_likelihood
from distpert.predictions.prediction import Prediction

if TYPE_CHECKING:
    import xarray as xr

IMPORTANCE, CLOSED_FORM = "importance", "closed form"
FEWEST_DRAWS = 100  # with fewer, k-hat rests on a handful of weights


def to_arviz(tree: xr.DataTree) -> Any:
    """Convert a tree to the form that the installed ArviZ reads.

    Parameters
    ----------
    tree : DataTree
        As `Prediction.to_datatree` returns it.

    Returns
    -------
    InferenceData or DataTree
        Before ArviZ 1: ``arviz.InferenceData`` with the same groups. From ArviZ 1 on: the tree itself.

    Raises
    ------
    TypeError
        If ``tree`` is not a DataTree.

    See Also
    --------
    distpert.loo, distpert.predictive_check

    Notes
    -----
    **Log-likelihood.** ``log_likelihood`` has a value for each perturbation and gene. ``arviz.loo``, ``loo_pit`` and
    ``compare`` are not suited to it, because they correct for cells that the draws have seen. Where
    ``constant_data["in_training"]`` is false, the draws have not seen the cells: use `calibration` and `score`. Where
    it is true, all genes of a perturbation share its response, but ``arviz.loo`` leaves out one gene, not one
    perturbation: use `loo`. Replicates are then drawn given the cells, so ``loo_pit`` is no held-out transform.

    **Summaries.** Draws of variational inference are independent draws from a fitted approximation, in one chain. Use
    ``arviz.summary(..., kind="stats")``; r-hat and effective sample sizes have no meaning here. Markov chains keep
    their chains. Their loadings and responses are identified only up to a rotation, so r-hat of ``response`` has no
    meaning either; `Fit.diagnostics` has that of what is identified.

    **Sensitivity to the prior.** ``arviz.psense_summary`` (from version 1 on) scales ``log_prior`` and
    ``log_likelihood`` by powers. Learned scales of priors stay as fitted.

    **Predictive checks** compare the four moments of replicates with the observed ones. Choose moments and genes with
    ``var_names`` and ``coords``. Observed moments have two dimensions and ties. In ArviZ 1.3, ``plot_ppc_pit`` needs
    ``method="prit_c"`` for them; before version 1, ``plot_bpv(kind="u_value")`` shows the same. `distpert.calibration`
    has the probability integral transform with bands that account for the dependence between genes.

    Examples
    --------
    >>> data = distpert.to_arviz(prediction.to_datatree(held_out))  # doctest: +SKIP
    >>> arviz.summary(data, var_names=["response"], kind="stats")  # doctest: +SKIP
    """
    import xarray as xr

    check_type("tree", tree, xr.DataTree, made_by="prediction.to_datatree(adata)")
    az = _arviz()
    if not _reads_inference_data(az):
        return tree
    groups = {name: group.to_dataset() for name, group in tree.children.items()}
    return az.InferenceData(attrs=tree.attrs, **groups)


@dataclass(frozen=True, eq=False, repr=False)
class LeaveOneOut:
    r"""Expected log predictive density of perturbations that are left out one by one; made by `loo`.

    Attributes
    ----------
    elpd : float
        Sum over perturbations, in nats.
    standard_error : float
        Standard error of ``elpd``, from the variation between perturbations; NaN for a single perturbation.
    pointwise : Dataset
        ``elpd`` in nats, ``pareto_k`` and ``method`` (perturbation), ``"importance"`` or ``"closed form"``.
    good_k : float
        Largest ``pareto_k`` for which importance sampling is reliable: :math:`\min(1 - 1 / \log_{10} S, 0.7)` with S
        draws (Vehtari et al. 2024, section 3.2.4).

    See Also
    --------
    distpert.loo

    Examples
    --------
    >>> found = distpert.loo(prediction)  # doctest: +SKIP
    >>> found.elpd, found.unreliable  # doctest: +SKIP
    """

    elpd: float
    standard_error: float
    pointwise: xr.Dataset
    good_k: float

    @property
    def unreliable(self) -> tuple[str, ...]:
        """Perturbations for which importance sampling was used, and is not reliable."""
        bad = ~(self.pointwise["pareto_k"] <= self.good_k).to_numpy()  # values that are not finite count as bad
        bad &= self.pointwise["method"].to_numpy() == IMPORTANCE
        return tuple(self.pointwise["perturbation"].to_numpy()[bad].tolist())

    def __repr__(self) -> str:
        k, n = self.pointwise["pareto_k"].to_numpy(), self.pointwise.sizes["perturbation"]
        n_closed = int((self.pointwise["method"] == CLOSED_FORM).sum())
        lines = [
            f"LeaveOneOut: {n} perturbations, elpd {self.elpd:.1f} ± {self.standard_error:.1f} nats",
            f"  k-hat {np.median(k):.2f} (median), {k.max():.2f} (largest); importance sampling is reliable up to "
            f"{self.good_k:.2f}",
            f"  {n - n_closed} by importance sampling, {n_closed} in closed form",
        ]
        if self.unreliable:
            lines.append(f"  not reliable for {len(self.unreliable)}: {listed(self.unreliable)}; use cross_validate")
        return "\n".join(lines)


def loo(prediction: Prediction, *, method: Literal["auto", "importance", "closed form"] = "auto") -> LeaveOneOut:
    r"""Estimate how well each training perturbation is predicted without its own cells.

    Importance sampling is tried first. For a perturbation where its k-hat says that it fails, as it mostly does in
    screens with many cells, a closed form takes its place.

    Parameters
    ----------
    prediction : Prediction
        Prediction of training perturbations in all contexts. More draws are better; with fewer than some hundreds,
        k-hat is not informative.
    method : {"auto", "importance", "closed form"}
        ``"auto"`` decides for each perturbation. The others are used for all.

    Returns
    -------
    LeaveOneOut
        With the k-hat and the method of each perturbation.

    Raises
    ------
    TypeError
        If ``prediction`` was not made by `Fit.predict`.
    ValueError
        If a perturbation was not in training, a context is missing, there are fewer than 100 draws, there is no such
        method, or the closed form is asked for of Markov chains.

    Warns
    -----
    UserWarning
        If importance sampling is used and is not reliable for some perturbations. The warning names them.

    See Also
    --------
    distpert.cross_validate

    Notes
    -----
    All genes and contexts of a perturbation share its response. Its likelihood is therefore the product over them, one
    observation for each perturbation.

    **Importance sampling** (Vehtari, Gelman & Gabry 2017, eq. 10), with Pareto-smoothed weights from ArviZ:

    .. math::
        \mathrm{elpd}_p = \log \frac{\sum_s w_{ps} \, p(n_p \mid z_{ps})}{\sum_s w_{ps}}, \qquad
        w_{ps} \propto 1 / p(n_p \mid z_{ps}) .

    It needs a posterior without the cells of p that is not much wider than that with them. Each perturbation has a
    response of its own, which hundreds of cells determine far better than other perturbations do.

    **Closed form.** With the normal posterior q of response and tilt, and their distribution given all other
    perturbations,

    .. math::
        \mathrm{elpd}_p \approx \operatorname{E}_q \log p(n_p \mid z_p, t_p)
        - \mathrm{KL}\big(q(z_p) \,\|\, p(z_p \mid z_{-p})\big) - \mathrm{KL}\big(q(t_p) \,\|\, p(t_p)\big) .

    The right side is a lower bound of the left, given the other responses, and it is equal to it if q is exact. The
    distribution of :math:`z_p` given the others is that of the Gaussian process (Rasmussen & Williams 2006, eq. 5.12).

    In both, loadings, controls and concentrations stay as estimated with all cells, which makes elpd optimistic.
    `distpert.cross_validate` fits again without the cells.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413; Vehtari, Simpson, Gelman, Yao & Gabry (2024),
    Journal of Machine Learning Research 25(72).

    Examples
    --------
    >>> prediction = fit.predict(fit.perturbations, num_draws=1000)  # doctest: +SKIP
    >>> distpert.loo(prediction).pointwise["pareto_k"].to_series()  # doctest: +SKIP
    """
    check_type("prediction", prediction, Prediction, made_by="fit.predict(labels)")
    if method not in ("auto", IMPORTANCE, CLOSED_FORM):
        raise ValueError(f"method must be 'auto', {IMPORTANCE!r} or {CLOSED_FORM!r}, not {method!r}")
    chains = prediction.posterior.samples is not None
    if method == CLOSED_FORM and chains:
        raise ValueError("Markov chains have no normal posterior for the closed form. Use method='importance'")
    training, wanted = prediction.training, prediction.posterior.contexts
    if unseen := [label for label in prediction.perturbations if label not in training.perturbations]:
        raise ValueError(f"not in training, so there is nothing to leave out: {listed(unseen)}. Use score instead")
    if missing := [context for context in wanted if context not in prediction.contexts]:
        raise ValueError(
            f"leaving out a perturbation takes all its contexts, but {listed(missing)} are not predicted. Predict all "
            "with fit.predict(..., context=None)"
        )
    if prediction.num_draws < FEWEST_DRAWS:
        raise ValueError(
            f"{prediction.num_draws} draws are too few for importance weights; loo needs {FEWEST_DRAWS} or more: "
            "fit.predict(..., num_draws=1000)"
        )
    cells = observed_cells(training, training, prediction.perturbations, prediction.contexts)["counts"]
    log_lik = log_likelihood(prediction, cells if training.context_key else cells.isel(context=0, drop=True))
    together = [dim for dim in ("context", "gene") if dim in log_lik.dims]
    total = log_lik.astype(np.float64).sum(together)
    elpd, pareto_k, good_k = _importance_sampling(prediction, total)
    failed = ~(pareto_k <= good_k)
    closed = np.zeros_like(failed)
    if not chains and method != IMPORTANCE:
        closed = failed if method == "auto" else ~closed
        elpd = np.where(closed, total.mean("draw").to_numpy() - _divergence(prediction), elpd)
    found = _leave_one_out(prediction, elpd, pareto_k, np.where(closed, CLOSED_FORM, IMPORTANCE), good_k)
    if found.unreliable:
        warnings.warn(
            f"importance sampling is not reliable (k-hat above {good_k:.2f}) for {len(found.unreliable)} of "
            f"{elpd.size} perturbations: {listed(found.unreliable)}. Use cross_validate, which fits without their "
            "cells",
            UserWarning,
            stacklevel=2,
        )
    return found


def _leave_one_out(
    prediction: Prediction, elpd: NDArray, pareto_k: NDArray, method: NDArray, good_k: float
) -> LeaveOneOut:
    """Name the results."""
    import xarray as xr

    return LeaveOneOut(
        elpd=float(elpd.sum()),
        standard_error=float(np.sqrt(elpd.size * elpd.var())) if elpd.size > 1 else np.nan,
        pointwise=xr.Dataset(
            {
                "elpd": ("perturbation", elpd, {"long_name": "log predictive density, left out", "units": "nats"}),
                "pareto_k": ("perturbation", pareto_k, {"long_name": "k-hat"}),
                "method": ("perturbation", method),
            },
            coords={"perturbation": list(prediction.perturbations)},
        ),
        good_k=good_k,
    )


def _divergence(prediction: Prediction) -> NDArray[np.float64]:
    """Kullback-Leibler divergence (perturbation,) of the posterior of each response and tilt from that without it."""
    posterior = prediction.posterior
    names = (
        "response", "response_scale", "on_target", "on_target_scale", "tilt_mean", "tilt_scale", "explained_share",
        "eigenvalues", "eigenvectors",
    )  # fmt: skip
    value = {name: posterior.parameters[name].to_numpy().astype(np.float64) for name in names}
    eigen = value["eigenvalues"], value["eigenvectors"]
    predicted, variance = leave_one_out(value["explained_share"], *eigen, value["response"])
    rows = [posterior.perturbations.index(label) for label in prediction.perturbations]
    of_response = _normal_divergence(value["response"], value["response_scale"], predicted, np.sqrt(variance))
    of_tilt = _normal_divergence(value["on_target"], value["on_target_scale"], value["tilt_mean"], value["tilt_scale"])
    return (of_response.sum(axis=1) + of_tilt.sum(axis=1))[rows]


def _normal_divergence(mean: NDArray, scale: NDArray, other: NDArray, other_scale: NDArray) -> NDArray[np.float64]:
    """KL(Normal(mean, scale²) ‖ Normal(other, other_scale²))."""
    ratio = (scale / other_scale) ** 2
    divergence: NDArray[np.float64] = 0.5 * (ratio + ((mean - other) / other_scale) ** 2 - 1 - np.log(ratio))
    return divergence


def _importance_sampling(prediction: Prediction, log_lik: xr.DataArray) -> tuple[NDArray, NDArray, float]:
    """Return elpd and k-hat (perturbation,), by ArviZ, of log-likelihoods (draw, perturbation); and the good k-hat."""
    import xarray as xr

    posterior = xr.Dataset({"response": (("draw", "perturbation", "factor"), prediction.response)}, log_lik.coords)
    groups = {"posterior": posterior, "log_likelihood": log_lik.to_dataset(name="counts")}
    tree = xr.DataTree.from_dict({name: group.expand_dims(chain=[0]) for name, group in groups.items()})
    az = _arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ warns of large k-hat without names; our warning has them
        # Draws are independent, so each counts in full.
        found = az.loo(to_arviz(tree), var_name="counts", pointwise=True, reff=1.0)
    elpd = found.loo_i if _reads_inference_data(az) else found.elpd_i
    return np.asarray(elpd, np.float64), np.asarray(found.pareto_k, np.float64), float(found.good_k)


def _arviz() -> Any:
    """Import ArviZ, without its announcement of version 1 once a day."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz
    return arviz


def _reads_inference_data(az: Any) -> bool:
    return int(az.__version__.split(".")[0]) < 1
