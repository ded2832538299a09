"""The models of a cross-validation, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from distpert._shared.arguments import check_count
from distpert._shared.labels import listed
from distpert.baselines import BASELINES
from distpert.embeddings.vectors import Embeddings
from distpert.fitting.fitting import fit
from distpert.histograms.histograms import Histograms
from distpert.model.optimization import Optimization
from distpert.model.priors import Priors

if TYPE_CHECKING:
    from distpert.baselines import Baseline
    from distpert.fitting.fitted import Fit
    from distpert.predictions.prediction import Prediction

    Model: TypeAlias = "str | Baseline | Distpert | tuple[str, Baseline | Distpert]"


@dataclass(frozen=True, kw_only=True)
class Distpert:
    """The model of `distpert.fit` with settings of your own, for `cross_validate`.

    Attributes
    ----------
    num_draws : int
        Number of posterior draws of a prediction.
    n_factors : int, optional
        As in `distpert.fit`.
    priors : Priors
        As in `distpert.fit`.
    optimization : Optimization
        As in `distpert.fit`.

    Raises
    ------
    ValueError
        If ``num_draws`` is below 1.

    See Also
    --------
    distpert.cross_validate

    Examples
    --------
    >>> few = Distpert(n_factors=4)
    >>> few.name, few.n_factors
    ('distpert', 4)
    >>> distpert.cross_validate(adata, "embeddings", models=["distpert", ("few_factors", few)])  # doctest: +SKIP
    """

    num_draws: int = 200
    n_factors: int | None = None
    priors: Priors = field(default_factory=Priors)
    optimization: Optimization = field(default_factory=Optimization)

    def __post_init__(self) -> None:
        check_count("num_draws", self.num_draws)

    @property
    def name(self) -> str:
        """Name of the model in the scores."""
        return "distpert"

    def fit(self, histograms: Histograms, embeddings: Embeddings, *, seed: int = 0) -> DistpertFit:
        """Fit without a progress bar; see `distpert.fit`.

        Examples
        --------
        >>> model = distpert.cross_validation.Distpert(n_factors=4)  # doctest: +SKIP
        >>> prediction = model.fit(histograms, embeddings).predict("NANOG", context="5")  # doctest: +SKIP
        """
        fitted = fit(
            histograms,
            embeddings,
            n_factors=self.n_factors,
            priors=self.priors,
            optimization=self.optimization,
            seed=seed,
            progress_bar=False,
        )
        return DistpertFit(fitted, self.num_draws)


@dataclass(frozen=True, eq=False)
class DistpertFit:
    """A fit with a fixed number of draws for predictions."""

    fitted: Fit
    num_draws: int

    def predict(
        self, perturbations: str | Sequence[str], *, context: str | Sequence[str] | None = None, seed: int = 0
    ) -> Prediction:
        """Predict without a progress bar; see `distpert.Fit.predict`."""
        return self.fitted.predict(
            perturbations, context=context, num_draws=self.num_draws, seed=seed, progress_bar=False
        )


def name_models(models: Model | Sequence[Model], num_draws: int, *, keep: bool) -> dict[str, Any]:
    """Make the models of `distpert.cross_validate`.

    Parameters
    ----------
    models, num_draws
        As in `distpert.cross_validate`.
    keep
        Whether results are kept in a folder. The ``repr`` of a model must then show its settings.

    Returns
    -------
    dict
        Objects with the protocol `distpert.baselines.Baseline`, by name.

    Raises
    ------
    TypeError, ValueError
        As in `distpert.cross_validate`.
    """
    known = {"distpert": lambda: Distpert(num_draws=num_draws), **BASELINES}
    entries = [models] if isinstance(models, str) or hasattr(models, "fit") else list(models)
    named: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, str):
            if entry not in known:
                raise ValueError(
                    f"no model {entry!r}; there are: {listed(known, 20)}. To name a model of your own, put a pair "
                    f"into the list: models=[({entry!r}, model)]"
                )
            name, model = entry, known[entry]()
        else:
            name, model = entry if isinstance(entry, tuple) else (getattr(entry, "name", None), entry)
        if not hasattr(model, "fit") or isinstance(model, type) or not isinstance(name, str):
            raise TypeError(
                f"a model is a name, an object with name and fit, or a pair of a name and such an object; got {entry!r}"
            )
        if not re.fullmatch(r"[\w.=+-]+", name):
            raise ValueError(f"model name {name!r} names files: use only letters, digits and . _ - + =")
        if name in named:
            raise ValueError(f"two models are named {name!r}. Rename one with a pair: (name, model)")
        if keep and re.search(r" at 0x[0-9a-f]+>", repr(model)):
            raise ValueError(
                f"model {name!r} prints as {model!r}, without its settings, which a folder of results must record: "
                "make it a dataclass, or give it a __repr__"
            )
        named[name] = model
    if not named:
        raise ValueError("no model to cross-validate")
    return named
