"""Settings of the optimization."""

from __future__ import annotations

from dataclasses import dataclass

from distpert._shared.arguments import check_count, check_number


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How the evidence lower bound is maximized.

    Adam on minibatches of groups. The step size falls along a cosine, from ``step_size`` to zero at the last epoch.

    Attributes
    ----------
    max_epochs : int
        Largest number of epochs, unless they have fewer than ``min_steps`` minibatches or more than ``max_steps``.
    min_steps : int
        Minibatches that the fit may take in any case: if ``max_epochs`` have fewer, the last epoch is the one that
        completes them. Small screens need them, because concentrations far below their prior are reached late.
    max_steps : int
        Minibatches that the fit takes at most, rounded up to whole epochs, unless ``min_epochs`` have more. What
        perturbations share needs a number of steps, not of epochs: large screens need fewer epochs.
    min_epochs : int
        Epochs that ``max_steps`` leave in any case. The response of a perturbation is moved once an epoch.
    batch_size : int
        Largest number of groups in a minibatch.
    step_size : float
        Step size of Adam at the start.
    tolerance, patience : float, int
        The fit ends early when the last ``patience`` epochs lowered the best loss by no more than ``tolerance`` of its
        whole fall.

    Raises
    ------
    ValueError
        If a number is out of range.

    See Also
    --------
    distpert.fit, distpert.Priors

    Examples
    --------
    >>> distpert.fit(adata, embeddings, optimization=distpert.Optimization(max_epochs=150))  # doctest: +SKIP
    """

    max_epochs: int = 75
    min_steps: int = 300
    max_steps: int = 700
    min_epochs: int = 20
    batch_size: int = 64
    step_size: float = 0.04
    tolerance: float = 0.0005
    patience: int = 15

    def __post_init__(self) -> None:
        for name, least in (
            ("max_epochs", 1),
            ("min_steps", 0),
            ("max_steps", 1),
            ("min_epochs", 1),
            ("batch_size", 1),
            ("patience", 1),
        ):
            object.__setattr__(self, name, check_count(name, getattr(self, name), least))
        object.__setattr__(self, "step_size", check_number("step_size", self.step_size, above=0))
        object.__setattr__(self, "tolerance", check_number("tolerance", self.tolerance, least=0))
