"""The bridge to ArviZ: trees that the installed version reads, and leave-one-out over perturbations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distpert._shared.arguments import check_type
from distpert._shared.labels import listed
from distpert.histograms.observed import observed_cells
from distpert.predictions.likelihood import log_likelihood
from distpert.predictions.prediction import Prediction

if TYPE_CHECKING:
    import xarray as xr

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

    **Summaries.** Draws are independent draws from a fitted approximation, in one chain. Use
    ``arviz.summary(..., kind="stats")``; r-hat and effective sample sizes have no meaning here. Parameters that are not
    drawn, such as ``concentration``, are in ``constant_data``.

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
        ``elpd`` in nats and ``pareto_k`` (perturbation).
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
        """Perturbations for which importance sampling is not reliable."""
        bad = ~(self.pointwise["pareto_k"] <= self.good_k).to_numpy()  # values that are not finite count as bad
        return tuple(self.pointwise["perturbation"].to_numpy()[bad].tolist())

    def __repr__(self) -> str:
        k, n = self.pointwise["pareto_k"].to_numpy(), self.pointwise.sizes["perturbation"]
        lines = [
            f"LeaveOneOut: {n} perturbations, elpd {self.elpd:.1f} ± {self.standard_error:.1f} nats",
            f"  k-hat {np.median(k):.2f} (median), {k.max():.2f} (largest); importance sampling is reliable up to "
            f"{self.good_k:.2f}",
        ]
        if self.unreliable:
            lines.append(f"  not reliable for {len(self.unreliable)}: {listed(self.unreliable)}; use cross_validate")
        return "\n".join(lines)


def loo(prediction: Prediction) -> LeaveOneOut:
    r"""Estimate how well each training perturbation is predicted without its own cells, by importance sampling.

    .. math::
        \mathrm{elpd}_p = \log \frac{\sum_s w_{ps} \, p(n_p \mid z_{ps})}{\sum_s w_{ps}}, \qquad
        w_{ps} \propto 1 / p(n_p \mid z_{ps})

    with Pareto-smoothed weights (Vehtari, Gelman & Gabry 2017, eq. 10), which ArviZ computes. All genes and contexts of
    a perturbation share its response. Its likelihood is therefore the product over them, one observation for each
    perturbation.

    Parameters
    ----------
    prediction : Prediction
        Prediction of training perturbations in all contexts. More draws are better; with fewer than some hundreds,
        k-hat is not informative.

    Returns
    -------
    LeaveOneOut
        With the k-hat of each perturbation.

    Raises
    ------
    TypeError
        If ``prediction`` was not made by `Fit.predict`.
    ValueError
        If a perturbation was not in training, a context is missing, or there are fewer than 100 draws.

    Warns
    -----
    UserWarning
        If importance sampling is not reliable for some perturbations. The warning names them.

    See Also
    --------
    distpert.cross_validate

    Notes
    -----
    Importance sampling is reliable only for screens with few cells and genes. Each perturbation has a response of its
    own, and on-target tilts where its gene is measured. Thousands of cells and genes determine these far better than
    the embedding and other perturbations do. The posterior is then too narrow to stand for the posterior without the
    cells, and k-hat is large. Use `distpert.cross_validate` instead, which fits again without the cells. The draws are
    from the fitted normal approximation. Point estimates, such as the kernel and the loadings, stay as fitted with all
    cells, which makes elpd optimistic.

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
    return _importance_sampling(prediction, log_lik.astype(np.float64).sum(together))


def _importance_sampling(prediction: Prediction, log_lik: xr.DataArray) -> LeaveOneOut:
    """Pareto-smoothed importance sampling, by ArviZ, of log-likelihoods (draw, perturbation)."""
    import xarray as xr

    posterior = xr.Dataset({"response": (("draw", "perturbation", "factor"), prediction.response)}, log_lik.coords)
    groups = {"posterior": posterior, "log_likelihood": log_lik.to_dataset(name="counts")}
    tree = xr.DataTree.from_dict({name: group.expand_dims(chain=[0]) for name, group in groups.items()})
    az = _arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ warns of large k-hat without names; the warning below has them
        # Draws are independent, so each counts in full.
        found = az.loo(to_arviz(tree), var_name="counts", pointwise=True, reff=1.0)
    elpd = found.loo_i if _reads_inference_data(az) else found.elpd_i
    values = np.asarray(elpd, np.float64)
    result = LeaveOneOut(
        elpd=float(values.sum()),
        standard_error=float(np.sqrt(values.size * values.var())) if values.size > 1 else np.nan,
        pointwise=xr.Dataset(
            {
                "elpd": ("perturbation", values, {"long_name": "log predictive density, left out", "units": "nats"}),
                "pareto_k": ("perturbation", np.asarray(found.pareto_k, np.float64), {"long_name": "k-hat"}),
            },
            coords={"perturbation": list(prediction.perturbations)},
        ),
        good_k=float(found.good_k),
    )
    if result.unreliable:
        warnings.warn(
            f"importance sampling is not reliable (k-hat above {result.good_k:.2f}) for {len(result.unreliable)} of "
            f"{values.size} perturbations: {listed(result.unreliable)}. Use cross_validate, which fits without their "
            "cells",
            UserWarning,
            stacklevel=3,
        )
    return result


def _arviz() -> Any:
    """Import ArviZ, without its announcement of version 1 once a day."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz
    return arviz


def _reads_inference_data(az: Any) -> bool:
    return int(az.__version__.split(".")[0]) < 1
