"""Pictures of a cross-validation: differences between models, and gains of perturbations."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from report import GROUPS, each_perturbation, of_category, title_of

# Colors that color-blind readers can distinguish (Okabe & Ito 2008); marks differ too.
BETTER, WORSE, UNCLEAR = "#0072B2", "#D55E00", "#777777"
STYLE = {"font.size": 12, "axes.titlesize": 13, "axes.spines.top": False, "axes.spines.right": False}
NO_SCORE = "none"
FAR = 8  # differences beyond this many typical ones are written at the edge


def draw_differences(compared: pd.DataFrame, reference: str = "distpert") -> Figure:
    """Draw a panel for each score, with the paired mean differences from the reference and their intervals."""
    models = compared["model"].unique().tolist()
    columns = max(map(len, GROUPS.values()))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(GROUPS), columns, figsize=(15, 3 * (1.1 + 0.27 * len(models))), layout="constrained", squeeze=False
        )
        for group, row in zip(GROUPS.values(), axes, strict=True):
            for ax in row[len(group) :]:
                ax.axis("off")
            for i, (ax, (name, heading)) in enumerate(zip(row, group.items(), strict=False)):
                rows = compared[compared["score"] == name].set_index("model").reindex(models)
                _difference_panel(ax, rows)
                ax.set_title(heading)
                ax.set_xlabel(f"difference from {reference}")
                ax.set_yticks(range(len(models)), models if i == 0 else [])
                if i == 0:
                    ax.set_ylabel("model")
        entries = [
            ("o", BETTER, f"{reference} is better"),
            ("D", WORSE, f"{reference} is worse"),
            ("o", UNCLEAR, "interval includes 0"),
        ]
        marks = [
            plt.Line2D([], [], marker=marker, color=color, label=label, mfc="white" if color == UNCLEAR else color)
            for marker, color, label in entries
        ]
        axes[-1, -1].legend(handles=marks, loc="center", frameon=False, title="mean and 95 % interval")
        n = int(compared["n_perturbations"].max())
        figure.suptitle(f"{title_of(compared['category'].iloc[0])}: {n} perturbations", fontsize=14)
    return figure


def _difference_panel(ax: Axes, rows: pd.DataFrame) -> None:
    sizes = rows["difference"].where(np.isfinite(rows["difference"])).abs()
    near = sizes <= FAR * (sizes.median() if sizes.notna().any() else np.nan)
    ends = [0.0, *rows.loc[near, ["lower", "upper"]].to_numpy().ravel()]
    room = 0.08 * (max(ends) - min(ends) or 1)
    left, right = min(ends) - room, max(ends) + room
    sign = -1 if (rows["better"] == "higher").any() else 1
    ax.axvline(0, color="black", lw=1)
    for y, (model, row) in enumerate(rows.iterrows()):
        difference = row["difference"]
        if np.isnan(difference):
            ax.text(0.97, y, NO_SCORE, transform=ax.get_yaxis_transform(), ha="right", va="center", color=UNCLEAR)
            continue
        unclear = row["lower"] <= 0 <= row["upper"]
        color = UNCLEAR if unclear else BETTER if sign * difference > 0 else WORSE
        if near[model]:
            ax.plot([row["lower"], row["upper"]], [y, y], color=color, lw=2)
            marker = "D" if color == WORSE else "o"
            ax.plot(difference, y, marker, color=color, mfc="white" if unclear else color, ms=7)
        else:
            x, marker, align = (right, ">", "right") if difference > 0 else (left, "<", "left")
            ax.plot(x, y, marker, color=color, ms=8, clip_on=False)
            ax.text(x, y, f"  {difference:.2g}  ".replace("-", "−"), color=color, va="center", ha=align)
    ax.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=3)
    ax.grid(axis="y", color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)


def best_other(scores: xr.Dataset, category: str, reference: str = "distpert") -> str:
    """Name the model with the lowest mean Cramér distance besides the reference."""
    means = each_perturbation(of_category(scores, category)["cramer"]).mean("perturbation").to_series()
    return str(means.drop(index=reference).idxmin())


def draw_gain(scores: xr.Dataset, chosen: Sequence[str], reference: str = "distpert") -> Figure:
    """Draw the gain over the best other model for each perturbation, by number of cells and by effect size.

    Each category has a row. The effect size needs the control among the models.
    """
    knows_effect = "control" in scores["model"] and reference != "control"
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(chosen),
            1 + knows_effect,
            figsize=(6 * (1 + knows_effect), 0.4 + 3.8 * len(chosen)),
            layout="constrained",
            squeeze=False,
            sharex="col",
            sharey="row",
        )
        for row, category in zip(axes, chosen, strict=True):
            other = best_other(scores, category, reference)
            of = of_category(scores, category)
            cramer = each_perturbation(of["cramer"])
            gain = (cramer.sel(model=other) - cramer.sel(model=reference)).to_numpy()
            n_cells = each_perturbation(of["n_cells"].where(of["n_cells"] > 0)).to_numpy()
            _gain_panel(row[0], n_cells, gain)
            row[0].set(xscale="log", ylabel=f"gain in Cramér\n{reference} over {other}")
            row[0].set_title(title_of(category), loc="left")
            if knows_effect:
                effect = cramer.sel(model="control").to_numpy()
                _gain_panel(row[1], effect, gain)
                # Linear near 0, because the unbiased distance of a weak perturbation may be below 0.
                row[1].set_xscale("symlog", linthresh=max(np.nanquantile(np.abs(effect), 0.25), 1e-6))
        axes[-1, 0].set_xlabel("cells of the perturbation")
        axes[-1, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[-1, 0].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes[-1, 0].xaxis.set_minor_formatter(NullFormatter())
        if knows_effect:
            axes[-1, 1].set_xlabel("effect size (Cramér of the control)")
        labeled = {}
        for ax in axes[:, 0]:
            handles, labels = ax.get_legend_handles_labels()
            labeled |= dict(zip(labels, handles, strict=True))
        figure.legend(labeled.values(), labeled, frameon=False, loc="outside upper right", ncols=2)
    return figure


def _gain_panel(ax: Axes, x: NDArray[np.float64], gain: NDArray[np.float64]) -> None:
    there = ~np.isnan(x) & ~np.isnan(gain)  # held out in this category, with cells
    order = np.argsort(x[there], kind="stable")
    x, gain = x[there][order], gain[there][order]
    ax.axhline(0, color="black", lw=1)
    ax.plot(x, gain, "o", color=BETTER, alpha=0.5, ms=7, mew=0, label="one perturbation")
    window = max(7, len(gain) // 5)
    if len(gain) >= 2 * window:
        median = pd.Series(gain).rolling(window, center=True).median()
        ax.plot(x, median, color=WORSE, lw=2.5, label="running median")
