"""Whether Markov chains agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distpert.histograms.moments import histogram_moments
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr

GOOD_R_HAT = 1.01  # Vehtari et al. 2021, Bayesian Analysis 16, 667


def diagnose(samples: xr.Dataset, groups: TrainingGroups) -> dict[str, float]:
    """Return the largest split R-hat and the smallest effective number of draws over what the data identify.

    Loadings and responses are identified only up to a rotation, and chains may differ in it. Their product is
    identified: R-hat is of the expected mean of each gene under each perturbation, of tilts and of log concentrations.

    Parameters
    ----------
    samples
        (chain, draw, ...) draws, see `name_samples`.
    groups
        The training counts.
    """
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    centers = groups.histograms.centers.to_numpy().astype(np.float32)
    control, common, loading, response = (
        samples[name].transpose("chain", "draw", ...).to_numpy()
        for name in ("control", "common", "loading", "response")
    )
    quantities = [
        samples[name].transpose("chain", "draw", ...).to_numpy() for name in ("on_target", "log_concentration")
    ]
    for c in range(len(groups.contexts)):
        base = control[:, :, c] + common[:, :, c]
        for p in range(len(groups.perturbations)):
            logits = base + np.einsum("cdk,cdkgb->cdgb", response[:, :, p], loading)
            probs = np.exp(logits - logits.max(axis=-1, keepdims=True))
            quantities.append(histogram_moments(probs / probs.sum(axis=-1, keepdims=True), centers)[0])
    r_hat, n_eff = [], []
    for values in quantities:
        flat = values.reshape(*values.shape[:2], -1).astype(np.float64)
        flat = flat[..., flat.std(axis=(0, 1)) > 0]  # a constant gene has no R-hat
        if flat.size:
            r_hat.append(np.max(split_gelman_rubin(flat)))
            n_eff.append(np.min(effective_sample_size(flat)))
    # Of a few draws, the estimate of the effective number can be negative.
    return {"r_hat": float(np.max(r_hat)), "n_eff": max(float(np.min(n_eff)), 1.0)}
