"""Write histograms to netCDF files and read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distpert._shared.files import numeric_encoding, write_whole

if TYPE_CHECKING:
    import xarray as xr

FORMAT_VERSION = 1
_VARIABLES = {"counts", "n_cells", "out_of_range", "perturbation", "context", "gene", "bin_left", "bin_right"}


def write_histograms(dataset: xr.Dataset, path: str | Path) -> None:
    """Write the dataset of histograms, with compressed counts. `read_histograms` reads it back unchanged.

    Parameters
    ----------
    dataset
        That of `distpert.Histograms`.
    path
        The file. An existing one is replaced once the new one is complete.
    """
    encoding = {str(name): numeric_encoding(variable) for name, variable in dataset.variables.items()}
    write_whole(path, lambda part: dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding))


def read_histograms(path: str | Path) -> xr.Dataset:
    """Read and check a file that `write_histograms` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    xarray.Dataset
        In memory; the file is closed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has no histograms, or was written by a newer version.
    """
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        dataset = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"cannot read {path}: it is damaged, or not a netCDF file. Write it again with "
            "count_histograms(adata, ...).save(path)"
        ) from error
    version = dataset.attrs.get("format_version")
    if version is None or not _VARIABLES.issubset(dataset.variables):
        raise ValueError(
            f"{path} has no histograms. Pass a file that Histograms.save wrote; for a fit, use distpert.load(path)"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, but this distpert reads versions up to {FORMAT_VERSION}. "
            "Upgrade distpert"
        )
    dataset.attrs["format_version"] = int(version)  # netCDF returns numpy's int64
    return dataset
