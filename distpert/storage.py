"""A fit as one netCDF file, without pickle."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distpert.embeddings import Embeddings
from distpert.histogram_files import numeric_encoding
from distpert.histograms import Histograms
from distpert.kernels import Kernel
from distpert.whole_files import write_whole

if TYPE_CHECKING:
    from distpert.fitted import Fit

FORMAT = "distpert fit"
FORMAT_VERSION = 1


def save_fit(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Write a fit; see `Fit.save`."""
    import xarray as xr

    embeddings = xr.Dataset(
        {
            "vectors": (("gene", "dim"), fit.embeddings.vectors),
            "source_dims": ("source", list(fit.embeddings.source_dims)),
        },
        coords={"gene": list(fit.embeddings.genes)},
    )
    facts = {
        "kernel": asdict(fit.kernel),
        "converged": fit.converged,
        "settings": fit.settings,
        "seconds": fit.seconds,
    }
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"format": FORMAT, "format_version": FORMAT_VERSION, "facts": json.dumps(facts)}),
            "/histograms": fit.histograms.dataset,
            "/embeddings": embeddings,
            "/parameters": fit.parameters,
            "/loss": xr.Dataset({"loss": ("epoch", fit.loss)}),
        }
    )
    encoding = {
        f"/{node}": {str(name): numeric_encoding(array) for name, array in tree[node].variables.items()}
        for node in ("histograms", "embeddings", "parameters", "loss")
    }
    write_whole(path, lambda part: tree.to_netcdf(part, engine="h5netcdf", encoding=encoding))


def load(path: str | os.PathLike[str]) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Fit

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds something else, or was written by a newer version.
    """
    import xarray as xr

    from distpert.fitted import Fit

    if not Path(path).exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except Exception as error:  # the netCDF stack raises whatever its layers do on damaged input
        raise ValueError(f"cannot read {path}: it is damaged, or not a netCDF file. Save the fit anew") from error
    if tree.attrs.get("format") != FORMAT:
        raise ValueError(f"{path} holds no fit: pass a file that Fit.save wrote (for counts, distpert.load_histograms)")
    if tree.attrs.get("format_version", 0) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {tree.attrs['format_version']}, and this distpert reads up to "
            f"{FORMAT_VERSION}: upgrade distpert"
        )
    try:
        facts = json.loads(tree.attrs["facts"], object_hook=_tuples)
        embeddings = tree["embeddings"].to_dataset()
        return Fit(
            histograms=Histograms(tree["histograms"].to_dataset()),
            embeddings=Embeddings(
                tuple(embeddings["gene"].to_numpy().tolist()),
                embeddings["vectors"].to_numpy(),
                tuple(embeddings["source_dims"].to_numpy().tolist()),
            ),
            kernel=Kernel(**facts["kernel"]),
            parameters=tree["parameters"].to_dataset(),
            loss=tree["loss"]["loss"].to_numpy(),
            converged=facts["converged"],
            settings=facts["settings"],
            seconds=facts["seconds"],
        )
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no {error}. Save the fit anew") from error


def _tuples(facts: dict[str, Any]) -> dict[str, Any]:
    """Undo what JSON does to tuples: priors have to be hashable."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
