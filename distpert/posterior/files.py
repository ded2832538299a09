"""A posterior as one netCDF file, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.files import numeric_encoding, write_whole
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.model.basis import shift_basis
from distpert.model.kernels import Kernel
from distpert.posterior.posterior import Posterior
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "distpert fit"
FORMAT_VERSION = 4


def write_posterior(
    posterior: Posterior, path: str | os.PathLike[str], *, loss: NDArray[np.float64], facts: Mapping[str, Any]
) -> None:
    """Write a posterior and how it was fitted.

    Parameters
    ----------
    posterior
        The posterior.
    path
        Where to write. An existing file is replaced once the new one is complete.
    loss
        (epoch,) negative evidence lower bound.
    facts
        Further values, in types that JSON can store.
    """
    import xarray as xr

    embeddings = xr.Dataset(
        {
            "vectors": (("gene", "dim"), posterior.embeddings.vectors),
            "source_dims": ("source", list(posterior.embeddings.source_dims)),
            "covered": (("gene", "source"), posterior.embeddings.covered),
            "symbol": ("alias", list(posterior.embeddings.aliases.values())),
        },
        coords={
            "gene": list(posterior.embeddings.genes),
            "source": list(posterior.embeddings.source_names),
            "alias": list(posterior.embeddings.aliases),
        },
    )
    text = json.dumps({"kernel": asdict(posterior.kernel), **facts})
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"format": FORMAT, "format_version": FORMAT_VERSION, "facts": text}),
            "/histograms": posterior.histograms.dataset,
            "/embeddings": embeddings,
            "/parameters": posterior.parameters,
            "/loss": xr.Dataset({"loss": ("epoch", loss)}),
            **({} if posterior.samples is None else {"/samples": posterior.samples}),
        }
    )
    encoding = {
        f"/{node}": {str(name): numeric_encoding(array) for name, array in tree[node].variables.items()}
        for node in tree.children
    }
    write_whole(path, lambda part: tree.to_netcdf(part, engine="h5netcdf", encoding=encoding))


def read_posterior(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that `write_posterior` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        The fields of a `Posterior`, ``loss``, and the facts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a fit, or was written by a newer version.
    """
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except Exception as error:  # damaged input raises errors of many types, from all layers of the netCDF stack
        raise ValueError(f"cannot read {path}: it is damaged, or not a netCDF file. Save the fit again") from error
    if tree.attrs.get("format") != FORMAT:
        raise ValueError(
            f"{path} has no fit. Pass a file that Fit.save wrote; for histograms, use distpert.load_histograms(path)"
        )
    version = tree.attrs.get("format_version", 0)
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, and this distpert reads versions up to {FORMAT_VERSION}: upgrade "
            "distpert"
        )
    try:
        facts = json.loads(tree.attrs["facts"], object_hook=_tuples)
        if version < 2:  # had British spelling
            facts["settings"]["optimization"] = facts["settings"].pop("optimisation")
        embeddings = tree["embeddings"].to_dataset()
        histograms = Histograms(tree["histograms"].to_dataset())
        parameters = tree["parameters"].to_dataset()
        return facts | {
            "histograms": histograms,
            "embeddings": _embeddings(embeddings) if version >= 4 else _one_source(embeddings),
            "kernel": Kernel(**(facts["kernel"] if version >= 4 else _of_one_source(facts["kernel"]))),
            "parameters": parameters if version >= 3 else _without_uncertainty(parameters, histograms),
            "samples": tree["samples"].to_dataset() if "samples" in tree.children else None,
            "loss": tree["loss"]["loss"].to_numpy(),
        }
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no {error}. Save the fit again") from error


def _embeddings(dataset: xr.Dataset) -> Embeddings:
    names = {name: dataset[name].to_numpy().tolist() for name in ("gene", "source_dims", "source", "alias", "symbol")}
    return Embeddings(
        tuple(names["gene"]),
        dataset["vectors"].to_numpy(),
        tuple(names["source_dims"]),
        tuple(names["source"]),
        dataset["covered"].to_numpy().astype(bool),
        dict(zip(names["alias"], names["symbol"], strict=True)),
    )


def _one_source(dataset: xr.Dataset) -> Embeddings:
    """Return the embeddings of a file before version 4, where several sources had one kernel."""
    vectors = dataset["vectors"].to_numpy()
    return Embeddings(tuple(dataset["gene"].to_numpy().tolist()), vectors, (vectors.shape[1],))


def _of_one_source(kernel: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings of the kernel of a file before version 4."""
    scales = (kernel["length_scale"],)
    weights = (1 - kernel["shared"],)
    return {
        "weights": weights,
        "length_scales": scales,
        "power": kernel["power"],
        "shared": kernel["shared"],
        "auxiliary": scales,
    }


def _tuples(facts: dict[str, Any]) -> dict[str, Any]:
    """Turn lists back into tuples, which JSON does not have: priors must be hashable."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}


def _without_uncertainty(parameters: xr.Dataset, histograms: Histograms) -> xr.Dataset:
    """Complete the parameters of a file before version 3, with point estimates of what perturbations share."""
    groups = TrainingGroups(histograms)
    control = np.log(groups.smoothed_control).astype(np.float32)
    n_contexts, n_genes, n_bins = control.shape
    zeros = np.zeros((n_contexts, n_genes, n_bins - 1), np.float32)
    along = ("gene", "direction")
    return parameters.assign(
        control=(("context", "gene", "bin"), control),
        basis=(("gene", "bin", "direction"), shift_basis(groups.smoothed_control.mean(axis=0), 0.0).astype(np.float32)),
        level_scale=(("context", *along), zeros),
        common_scale=(("context", *along), zeros),
        loading_scale=(("factor", *along), np.zeros((parameters.sizes["factor"], *zeros.shape[1:]), np.float32)),
        perturbed_share=("context", np.zeros(n_contexts, np.float32)),
        log_concentration_scale=("gene", np.zeros(n_genes, np.float32)),
        typical_log_concentration=parameters["log_concentration"].mean(),
        log_concentration_spread=np.float32(0),
    )
