"""The folder of a cross-validation: settings, splits, and a netCDF file for each fold and model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distpert._shared.files import numeric_encoding, write_whole
from distpert.cross_validation.splits import Splits
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.expression import digest_values
from distpert.histograms.screen import Screen

if TYPE_CHECKING:
    import xarray as xr

_WAY_OUT = "Pass another path, or the settings that it was made with"


def describe_data(screen: Screen, embeddings: Embeddings) -> dict[str, Any]:
    """Describe data by sizes and digests of their content, to recognize other data.

    Parameters
    ----------
    screen
        The screen, as read.
    embeddings
        Embeddings of the perturbed genes.

    Returns
    -------
    dict
        Plain values, the same for the same data in any layout.
    """
    vectors = sha256(np.ascontiguousarray(embeddings.vectors).tobytes())
    return {
        "cells": screen.matrix.shape[0],
        "genes": _digest(screen.genes),
        "perturbation labels": _digest(screen.perturbation),
        "contexts": _digest(screen.context),
        "expression": digest_values(screen.matrix),
        "embeddings": f"{_digest(embeddings.genes)} {vectors.hexdigest()[:16]} {embeddings.source_dims}",
    }


def _digest(names: Any) -> str:
    return sha256("\n".join(names).encode()).hexdigest()[:16]


def open_folder(path: str | os.PathLike[str], settings: Mapping[str, Any], splits: Splits) -> Path:
    """Make a folder with ``settings.json`` and ``splits.json``, or check an existing one.

    Parameters
    ----------
    path
        The folder.
    settings
        Plain values on which all results in the folder depend.
    splits
        The folds.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the folder was made with other settings (the message names them with both values), contains other files, or
        is damaged.
    """
    folder = Path(path)
    settings_file, splits_file = folder / "settings.json", folder / "splits.json"
    if not settings_file.exists():
        if folder.exists() and (not folder.is_dir() or any(map(_is_foreign, folder.iterdir()))):
            raise ValueError(f"{folder} exists and is not a cross-validation. Pass the path of a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(splits_file, lambda part: part.write_text(splits.to_json()))
        write_whole(settings_file, lambda part: part.write_text(json.dumps(settings, indent=1)))
        return folder
    try:
        found, folds = json.loads(settings_file.read_text()), Splits.from_json(splits_file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is damaged: {settings_file.name} or {splits_file.name} cannot be read ({error}). {_WAY_OUT}"
        ) from error
    if other := [name for name in settings if found.get(name) != settings[name]]:
        differences = "; ".join(f"{name}: there {found.get(name)!r}, here {settings[name]!r}" for name in other)
        raise ValueError(f"{folder} was made with other settings. {differences}. {_WAY_OUT}")
    if folds != splits:
        raise ValueError(f"{splits_file} has other folds than these settings give. {_WAY_OUT}")
    return folder


def read_scores(folder: Path, fold: int, name: str, settings: str) -> xr.Dataset | None:
    """Read what `write_scores` wrote for a fold and a model; None if there is nothing yet.

    Parameters
    ----------
    folder
        As `open_folder` returned it.
    fold, name
        The fold and the name of the model.
    settings
        The model's own settings.

    Returns
    -------
    Dataset or None

    Raises
    ------
    ValueError
        If the file cannot be read, or comes from a model of this name with other settings.
    """
    import xarray as xr

    file = _file(folder, fold, name)
    if not file.exists():
        return None
    try:
        scores = xr.load_dataset(file, engine="h5netcdf")
        found = scores.attrs.pop("model")
    except Exception as error:  # the netCDF stack raises whatever its layers do on damaged input
        raise ValueError(f"cannot read {file}: delete it, and it will be made again") from error
    if found != settings:
        raise ValueError(
            f"model {name!r} in {folder} has other settings. There {found}, here {settings}. Name this model "
            "differently: models=[(name, model), ...]"
        )
    return scores


def write_scores(scores: xr.Dataset, folder: Path, fold: int, name: str, settings: str) -> None:
    """Write the scores of a fold and a model. The file appears only when it is complete.

    Parameters
    ----------
    scores
        The scores to keep.
    folder, fold, name, settings
        As in `read_scores`.
    """
    encoding = {str(variable): numeric_encoding(array) for variable, array in scores.variables.items()}
    scores = scores.assign_attrs(model=settings)
    write_whole(_file(folder, fold, name), lambda part: scores.to_netcdf(part, engine="h5netcdf", encoding=encoding))


def _is_foreign(file: Path) -> bool:
    # Another process may be about to make the same folder.
    return not file.name.startswith(("settings.json", "splits.json"))


def _file(folder: Path, fold: int, name: str) -> Path:
    return folder / f"fold{fold}_{name}.nc"
