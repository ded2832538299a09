"""The names by which the cells of a screen are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ScreenKeys:
    """The five names by which the cells of a screen are read from an AnnData.

    Attributes
    ----------
    perturbation_key : str
        Column of ``adata.obs`` with the perturbation of each cell.
    control : str
        Label of the control cells.
    context_key : str or None
        Column of ``adata.obs`` with the context of each cell: day, batch, cell line.
    layer : str or None
        Layer to read in place of ``adata.X``.
    gene_symbols : str or None
        Column of ``adata.var`` with gene symbols, in place of ``adata.var_names``.

    See Also
    --------
    distpert.count_histograms, distpert.Histograms, distpert.fit

    Examples
    --------
    >>> ScreenKeys(context_key="day")
    ScreenKeys(perturbation_key='perturbation', control='control', context_key='day', layer=None, gene_symbols=None)
    """

    perturbation_key: str = "perturbation"
    control: str = "control"
    context_key: str | None = None
    layer: str | None = None
    gene_symbols: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the names as keyword arguments of `distpert.count_histograms` and `distpert.fit`.

        Examples
        --------
        >>> ScreenKeys(context_key="day").to_dict()["context_key"]
        'day'
        >>> fit = distpert.fit(adata, embeddings, **histograms.keys.to_dict())  # doctest: +SKIP
        """
        return asdict(self)

    def to_attrs(self) -> dict[str, str]:
        """Return the names as attributes of a file. None becomes an empty text, because a file cannot store None.

        Examples
        --------
        >>> attrs = ScreenKeys(context_key="day").to_attrs()
        >>> attrs["context_key"], attrs["layer"]
        ('day', '')
        """
        return {name: value or "" for name, value in asdict(self).items()}

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> ScreenKeys:
        """Read what `to_attrs` wrote. A name that is absent or empty has its default.

        Examples
        --------
        >>> ScreenKeys.from_attrs({"context_key": "day", "layer": ""})
        ScreenKeys(perturbation_key='perturbation', control='control', context_key='day', layer=None, gene_symbols=None)
        """
        return cls(**{key.name: str(attrs[key.name]) for key in fields(cls) if attrs.get(key.name)})
