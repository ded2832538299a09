"""A posterior as draws of Markov chains: layout, selection, and responses of all perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import predict_normal
from distpert.model.generative import Design
from distpert.model.kernels import Kernel, kernel_between
from distpert.posterior.responses import DrawnResponses
from distpert.posterior.unseen import KernelEigen
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr

# Sites of the model that are kept as they are, with their dimensions after chain and draw.
_PLAIN = {
    "common_size": (),
    "context_size": (),
    "factor_size": ("factor",),
    "direction_size": ("direction",),
    "explained_share": ("factor",),
    "tilt_mean": ("tilt",),
    "tilt_scale": ("tilt",),
    "on_target": ("perturbation", "tilt"),
    "typical_log_concentration": (),
    "log_concentration_spread": (),
    "log_concentration": ("gene",),
}


class SharedDraws(NamedTuple):
    """Draws of what all perturbations share, in one context and for a slice of the genes.

    Attributes
    ----------
    control
        (draw, gene, bin) logits of the control cells.
    base
        (draw, gene, bin) logits of perturbed cells whose response is zero.
    loading
        (draw, factor, gene, bin) loadings.
    concentration
        (draw, gene) concentrations κ.
    """

    control: Float32[np.ndarray, "draw gene bin"]
    base: Float32[np.ndarray, "draw gene bin"]
    loading: Float32[np.ndarray, "draw factor gene bin"]
    concentration: Float32[np.ndarray, "draw gene"]


def name_samples(samples: Mapping[str, Any], groups: TrainingGroups, design: Design) -> xr.Dataset:
    """Return draws of the sites of the model as a Dataset (chain, draw, ...), with shifts along the bins.

    Raises
    ------
    KeyError
        If a site is missing.
    ValueError
        If a site has another shape than (chain, draw, ...), or is not finite.
    """
    import xarray as xr

    needed = [name for name in (*_PLAIN, "level", "shift", "loading", "response") if name != "context_size"]
    if len(groups.contexts) > 1:
        needed.append("context_size")
    if missing := [name for name in needed if name not in samples]:
        raise KeyError(f"the samples have no site {missing[0]!r}; pass mcmc.get_samples(group_by_chain=True)")
    values = {name: np.asarray(samples[name], np.float32) for name in needed}
    lead = values["common_size"].shape
    n_genes, _, n_directions = np.shape(design.basis)
    n_factors = values["factor_size"].shape[-1]
    sizes = {
        "context": len(groups.contexts), "gene": n_genes, "direction": n_directions, "factor": n_factors,
        "perturbation": len(groups.perturbations), "tilt": np.shape(design.tilts)[2],
    }  # fmt: skip
    dims = _PLAIN | {
        "level": ("context", "gene", "direction"),
        "shift": ("context", "gene", "direction"),
        "loading": ("factor", "gene", "direction"),
        "response": ("factor", "perturbation"),
    }
    for name, value in values.items():
        shape = (*lead, *(sizes[dim] for dim in dims[name]))
        if len(lead) != 2 or value.shape != shape:
            raise ValueError(
                f"{name} has the shape {value.shape}, not (chain, draw, {', '.join(dims[name])}): pass "
                "mcmc.get_samples(group_by_chain=True) of the model of this fit"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite in some draws")

    def along_bins(coordinates: NDArray) -> NDArray[np.float32]:
        return np.einsum("...gj,gbj->...gb", coordinates, np.asarray(design.basis), optimize=True)

    share = np.asarray(design.perturbed_share)[:, None, None]
    control = np.asarray(design.log_pooled) + along_bins(values["level"] - share * values["shift"])
    along = ("gene", "bin")
    return xr.Dataset(
        {name: (("chain", "draw", *_PLAIN[name]), values[name]) for name in needed if name in _PLAIN}
        | {
            "control": (("chain", "draw", "context", *along), control),
            "common": (("chain", "draw", "context", *along), along_bins(values["shift"])),
            "loading": (("chain", "draw", "factor", *along), along_bins(values["loading"])),
            "response": (("chain", "draw", "perturbation", "factor"), np.swapaxes(values["response"], -1, -2)),
        },
        coords={
            "gene": list(groups.histograms.genes),
            "perturbation": list(groups.perturbations),
            "context": list(groups.contexts),
        },
    )


def flatten(samples: xr.Dataset, num_draws: int) -> xr.Dataset:
    """Take ``num_draws`` draws, as many of each chain and evenly spaced; the chains come one after the other.

    Raises
    ------
    ValueError
        If there are fewer draws, or they are not the same number for each chain.
    """
    n_chains, n_each = samples.sizes["chain"], samples.sizes["draw"]
    if num_draws % n_chains or num_draws > n_chains * n_each:
        raise ValueError(
            f"num_draws must be a multiple of the {n_chains} chains and at most {n_chains * n_each}, not {num_draws}"
        )
    chosen = np.linspace(0, n_each - 1, num_draws // n_chains).round().astype(int)
    return samples.isel(draw=chosen).stack(sample=("chain", "draw"), create_index=False).transpose("sample", ...)


def shared_of_samples(samples: xr.Dataset, context: int, genes: slice, num_draws: int) -> SharedDraws:
    """Return the draws of what all perturbations share."""
    chosen = flatten(samples[["control", "common", "loading", "log_concentration"]].isel(gene=genes), num_draws)
    control, common = (chosen[name].isel(context=context).to_numpy() for name in ("control", "common"))
    concentration = np.exp(chosen["log_concentration"].to_numpy())
    return SharedDraws(control, control + common, np.ascontiguousarray(chosen["loading"].to_numpy()), concentration)


@dataclass(frozen=True, eq=False, repr=False)
class SampledResponses:
    """Responses and tilts of all perturbations, from the draws of chains.

    A training perturbation has its own draws. An unseen one is drawn, for each draw of the others, from the Gaussian
    process of the model.
    """

    perturbations: tuple[str, ...]
    samples: xr.Dataset
    embeddings: Embeddings
    kernel: Kernel
    eigen: KernelEigen

    def draw(self, labels: Sequence[str], num_draws: int, seed: int) -> DrawnResponses:
        """Take the draws of training perturbations, and draw unseen ones. All are active, as the model has it."""
        names = ["response", "on_target", "explained_share", "tilt_mean", "tilt_scale"]
        drawn = {name: array.to_numpy() for name, array in flatten(self.samples[names], num_draws).items()}
        response = np.empty((num_draws, len(labels), drawn["response"].shape[-1]), np.float32)
        on_target = np.empty((num_draws, len(labels), drawn["on_target"].shape[-1]), np.float32)
        unseen = [label for label in labels if label not in self.perturbations]
        cross = kernel_between(unseen, self.perturbations, self.embeddings, self.kernel)
        for i, label in enumerate(labels):
            if label in self.perturbations:
                row = self.perturbations.index(label)
                response[:, i], on_target[:, i] = drawn["response"][:, row], drawn["on_target"][:, row]
                continue
            rng = np.random.default_rng([seed, crc32(label.encode())])
            for s in range(num_draws):
                known = drawn["response"][s].astype(np.float64)
                share = drawn["explained_share"][s].astype(np.float64)
                row_of = cross[[unseen.index(label)]]
                mean, scale = predict_normal(share, *self.eigen, row_of, known, np.zeros_like(known))
                response[s, i] = mean[0] + scale[0] * rng.standard_normal(len(share))
            on_target[:, i] = drawn["tilt_mean"] + drawn["tilt_scale"] * rng.standard_normal(on_target[:, i].shape)
        return DrawnResponses(response, on_target, np.zeros(response.shape[:2], bool))


def one_draw(samples: xr.Dataset, design: Design) -> xr.Dataset:
    """Return the last draw of the first chain, in the layout of the parameters of a normal posterior."""
    last = samples.isel(chain=0, draw=-1).drop_vars(["chain", "draw"], errors="ignore")
    scales: dict[str, Any] = {
        f"{name}_scale": last[name].astype(np.float32) * 0 for name in ("response", "on_target", "log_concentration")
    }
    n_genes, _, n_directions = np.shape(design.basis)
    n_contexts, n_factors = last.sizes["context"], last.sizes["factor"]
    along = ("gene", "direction")
    return last.drop_vars("context_size", errors="ignore").assign(
        **scales,
        level_scale=(("context", *along), np.zeros((n_contexts, n_genes, n_directions), np.float32)),
        common_scale=(("context", *along), np.zeros((n_contexts, n_genes, n_directions), np.float32)),
        loading_scale=(("factor", *along), np.zeros((n_factors, n_genes, n_directions), np.float32)),
        basis=(("gene", "bin", "direction"), np.asarray(design.basis)),
        perturbed_share=("context", np.asarray(design.perturbed_share)),
        eigenvalues=("eigen", np.asarray(design.eigenvalues)),
        eigenvectors=(("perturbation", "eigen"), np.asarray(design.eigenvectors)),
    )
