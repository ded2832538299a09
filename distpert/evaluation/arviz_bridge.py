"""Where ArviZ comes in: trees in the form that the installed version reads, and LOO over perturbations."""

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

FEWEST_DRAWS = 100  # below, k-hat is of the handful of largest weights


def to_arviz(tree: xr.DataTree) -> Any:
    """Give a tree the form that the installed ArviZ reads.

    Parameters
    ----------
    tree
        As `Prediction.to_datatree` returns it.

    Returns
    -------
    InferenceData or DataTree
        ``arviz.InferenceData`` with the same groups where ArviZ is older than 1; from 1 on the tree itself.

    Raises
    ------
    TypeError
        If it is no tree.

    Notes
    -----
    **What needs the likelihood.** ``log_likelihood`` has a value for each perturbation and gene. Where
    ``constant_data["in_training"]`` is false the draws have not seen these cells, and ``arviz.loo``, ``loo_pit`` and
    ``compare``, which take away again what draws have seen, are wrong: use `calibration` and `score` as they are.
    Where it is true, genes of one perturbation share its response, so ``arviz.loo`` leaves out one gene, not one
    perturbation: see `loo`; and replicates are drawn given the cells, so that ``loo_pit`` is no transform of what was
    left out.

    **Summaries.** Draws are independent, of a fitted approximation, in one chain: ``arviz.summary(..., kind="stats")``;
    r-hat and effective sample sizes say nothing. What is not drawn, as ``concentration``, is in ``constant_data``.

    **Predictive checks** compare the four moments of replicates with those observed: choose some with ``var_names`` and
    ``coords``. Observed moments have two dimensions and ties. In ArviZ 1.3 ``plot_ppc_pit`` takes them with
    ``method="prit_c"`` alone; before version 1, ``plot_bpv(kind="u_value")`` shows the same. `distpert.calibration` has
    the transform with bands that know that genes move together.
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
    r"""Expected log predictive density of perturbations left out one by one; made by `loo`.

    Attributes
    ----------
    elpd : float
        Sum over perturbations, in nats.
    standard_error : float
        Of ``elpd``, from the variation between perturbations; NaN of one.
    pointwise : Dataset
        ``elpd`` in nats and ``pareto_k`` (perturbation).
    good_k : float
        Largest ``pareto_k`` with which importance sampling holds: :math:`\min(1 - 1 / \log_{10} S, 0.7)` with S draws
        (Vehtari et al. 2024, section 3.2.4).
    """

    elpd: float
    standard_error: float
    pointwise: xr.Dataset
    good_k: float

    @property
    def unreliable(self) -> tuple[str, ...]:
        """Perturbations for which importance sampling does not hold."""
        bad = ~(self.pointwise["pareto_k"] <= self.good_k).to_numpy()  # not finite is bad too
        return tuple(self.pointwise["perturbation"].to_numpy()[bad].tolist())

    def __repr__(self) -> str:
        k, n = self.pointwise["pareto_k"].to_numpy(), self.pointwise.sizes["perturbation"]
        lines = [
            f"LeaveOneOut: {n} perturbations, elpd {self.elpd:.1f} ± {self.standard_error:.1f} nats",
            f"  k-hat {np.median(k):.2f} (median), {k.max():.2f} (largest); importance sampling holds up to "
            f"{self.good_k:.2f}",
        ]
        if self.unreliable:
            lines.append(f"  does not hold for {len(self.unreliable)}: {listed(self.unreliable)}; use cross_validate")
        return "\n".join(lines)


def loo(prediction: Prediction) -> LeaveOneOut:
    r"""Estimate by importance sampling how well each training perturbation is predicted without its own cells.

    .. math::
        \mathrm{elpd}_p = \log \frac{\sum_s w_{ps} \, p(n_p \mid z_{ps})}{\sum_s w_{ps}}, \qquad
        w_{ps} \propto 1 / p(n_p \mid z_{ps})

    with Pareto-smoothed weights (Vehtari, Gelman & Gabry 2017, eq. 10), which ArviZ computes. All genes and contexts of
    a perturbation share its response, so its likelihood is the product over them: one observation a perturbation.

    Parameters
    ----------
    prediction
        Of perturbations that were in training, in all contexts: only their draws have seen the cells that are taken
        away again. The more draws, the better; below some hundreds, k-hat says little.

    Returns
    -------
    LeaveOneOut
        With the k-hat of each perturbation.

    Warns
    -----
    UserWarning
        If importance sampling does not hold for some perturbations; they are named.

    Raises
    ------
    TypeError
        If `prediction` is not that of a fit.
    ValueError
        If a perturbation was not in training, a context is left out, or there are fewer than 100 draws.

    Notes
    -----
    Each perturbation has a response of its own, and tilts where its gene is measured, and thousands of cells and genes
    tell these far better than the embedding and other perturbations do. The posterior is then too narrow to stand for
    that without the cells, and k-hat is large: expect this to hold only where cells and genes are few. Elsewhere
    `distpert.cross_validate` fits anew without them. The draws are of the fitted normal approximation, with all that is
    estimated as a point, kernel and loadings among it, as it was fitted with all cells; that makes elpd optimistic.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413; Vehtari, Simpson, Gelman, Yao & Gabry (2024),
    Journal of Machine Learning Research 25(72).
    """
    check_type("prediction", prediction, Prediction, made_by="fit.predict(labels)")
    training, wanted = prediction.training, prediction.posterior.contexts
    if unseen := [label for label in prediction.perturbations if label not in training.perturbations]:
        raise ValueError(f"not in training, so there is nothing to leave out: {listed(unseen)}; score predicts afresh")
    if missing := [context for context in wanted if context not in prediction.contexts]:
        raise ValueError(
            f"leaving out a perturbation takes all its contexts, but {listed(missing)} are not predicted: "
            "fit.predict(..., context=None)"
        )
    if prediction.num_draws < FEWEST_DRAWS:
        raise ValueError(
            f"{prediction.num_draws} draws tell nothing of heavy tails of weights; loo takes {FEWEST_DRAWS} or more: "
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
        warnings.simplefilter("ignore")  # ArviZ warns of large k-hat without saying where: we do, below
        # Draws are independent: each counts in full.
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
            f"importance sampling does not hold (k-hat above {result.good_k:.2f}) for {len(result.unreliable)} of "
            f"{values.size} perturbations: {listed(result.unreliable)}. Their cells tell too much to be taken away "
            "again; cross_validate fits without them",
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
