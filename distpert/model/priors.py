"""Prior scales of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distpert._shared.arguments import check_number


@dataclass(frozen=True, kw_only=True)
class Priors:
    """Prior scales, in logits unless stated otherwise.

    Attributes
    ----------
    level : float
        Standard deviation of each step from bin to bin of the level of a context, about the pooled histogram.
    common : float
        Scale of the half-normal prior of the standard deviation of each step of the common shift.
    context : float
        The same for each context's deviation from the common shift.
    loading : float
        The same for the loadings of each factor.
    direction : float
        Standard deviation of the logarithm of the relative size of loadings along each direction of the basis.
    loading_smoothness : float
        Correlation of each step with the next, from 0 to below 1, for all of these.
    log_concentration : tuple of float
        Mean and standard deviation of the logarithm of a typical concentration κ.
    share : tuple of float
        The two parameters of the Beta prior of the explained share ρ.

    Raises
    ------
    ValueError
        If a scale is not above 0, the smoothness is not from 0 to below 1, or a pair is not two such numbers.

    See Also
    --------
    distpert.fit, distpert.Optimization

    Examples
    --------
    >>> distpert.fit(adata, embeddings, priors=distpert.Priors(loading=0.3))  # doctest: +SKIP
    """

    level: float = 0.5
    common: float = 0.3
    context: float = 0.3
    loading: float = 0.3
    direction: float = 0.5
    loading_smoothness: float = 0.8
    log_concentration: tuple[float, float] = (8.0, 1.5)
    share: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        bounds: dict[str, dict[str, float]] = {
            name: {"above": 0} for name in ("level", "common", "context", "loading", "direction")
        }
        bounds["loading_smoothness"] = {"least": 0, "below": 1}
        for name, wanted in bounds.items():
            object.__setattr__(self, name, check_number(name, getattr(self, name), **wanted))  # a plain float, for JSON
        if np.float32(self.loading_smoothness) >= 1:
            raise ValueError(f"loading_smoothness must be below 1 in single precision, not {self.loading_smoothness!r}")
        mean, deviation = _pair("log_concentration", self.log_concentration)
        mean = check_number("mean of log_concentration", mean)
        deviation = check_number("standard deviation of log_concentration", deviation, above=0)
        share = [check_number("each number of share", value, above=0) for value in _pair("share", self.share)]
        object.__setattr__(self, "log_concentration", (mean, deviation))
        object.__setattr__(self, "share", tuple(share))


def _pair(name: str, given: object) -> Sequence[object]:
    """Return a pair as a tuple or list."""
    pair = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{name} must be two numbers, not {given!r}")
    return pair
