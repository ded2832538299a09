"""The report of a cross-validation: tables of scores and differences, and sentences about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

import distpert

ALL = "all"
HALVES = "(half of the cells)"
# `crps` and `nll_density` are only in the csv files: they differ from `cramer` and `nll` by the same for all models.
GROUPS = {
    "Distributions": {
        "nll": "NLL",
        "cramer": "Cramér",
        "wasserstein": "Wasserstein",
        "on_target_cramer": "Cramér on target",
    },
    "Moments": {
        "rmae_mean": "RMAE mean",
        "rmae_variance": "RMAE variance",
        "rmae_skewness": "RMAE skewness",
        "rmae_kurtosis": "RMAE kurtosis",
    },
    "Shift of the mean": {
        "pearson_shift": "Pearson from control",
        "pearson_shift_centered": "Pearson from mean perturbation",
    },
}
HEADINGS = {name: heading for group in GROUPS.values() for name, heading in group.items()}
SINGLES = "unseen_single"


def without_artefacts(scores: xr.Dataset) -> xr.Dataset:
    """Remove the shift correlation of the control baseline, which comes only from its smoothing."""
    if "pearson_shift" not in scores:
        return scores
    shift = scores["pearson_shift"]
    return scores.assign(pearson_shift=shift.where(shift["model"] != "control"))


def categories(scores: xr.Dataset) -> list[str]:
    """Categories that occur, with "all" first; only "all" if there is a single category."""
    there = set(scores["category"].to_numpy().ravel().tolist()) - {""}
    return [ALL, *sorted(there, key=lambda name: (name != SINGLES, name))] if len(there) > 1 else [ALL]


def title_of(category: str) -> str:
    """Return the title of a category."""
    if category in (ALL, SINGLES):
        return {ALL: "All perturbations", SINGLES: "Single genes, unseen"}[category]
    return f"Combinations, genes seen: {category.removeprefix('combo_seen')}"


def of_category(scores: xr.Dataset, category: str) -> xr.Dataset:
    """Scores of one category; NaN for the others."""
    return scores if category == ALL else scores.where(scores["category"] == category)


def each_perturbation(array: xr.DataArray) -> xr.DataArray:
    """Average over folds and contexts: each perturbation then counts once."""
    return array.mean([dim for dim in array.dims if dim not in ("model", "perturbation")])


def mean_scores(scores: xr.Dataset, category: str = ALL) -> pd.DataFrame:
    """Means over perturbations (model × score); the last row is the score of half of the held-out cells."""
    chosen, table = of_category(scores, category), {}
    for name, array in chosen.data_vars.items():
        if array.attrs.get("better") in ("lower", "higher"):
            column = each_perturbation(array).mean("perturbation").to_series()
            ceiling = chosen.get(f"ceiling_{name}")
            column[HALVES] = np.nan if ceiling is None else float(each_perturbation(ceiling).mean())
            table[name] = column
    return pd.DataFrame(table)


def differences(scores: xr.Dataset, reference: str = "distpert") -> pd.DataFrame:
    """Paired differences from the reference (see `compare`): a row for each category, score and model."""
    parts = []
    for category in categories(scores):
        if category != ALL and (scores["category"] == category).any("fold").sum() < 2:
            continue
        compared = distpert.compare(scores, reference, category=None if category == ALL else category)
        for name, array in compared.data_vars.items():
            both = each_perturbation(of_category(scores, category)[name]).notnull()
            part = array.to_pandas().drop(index=reference)
            part["n_perturbations"] = (both & both.sel(model=reference)).sum("perturbation").to_series()
            part = part.rename_axis("model").reset_index()
            part.insert(0, "score", str(name))
            part.insert(0, "category", category)
            parts.append(part.assign(better=array.attrs["better"]))
    return pd.concat(parts, ignore_index=True)


def rows_by_perturbation(scores: xr.Dataset) -> pd.DataFrame:
    """A row for each model, fold, perturbation and context with cells, and a column for each score."""
    table = scores.drop_vars("seconds", errors="ignore").to_dataframe().reset_index()
    first = [name for name in ("model", "fold", "category", "perturbation", "context", "n_cells") if name in table]
    held_out = (table["category"] != "") & (table["n_cells"] > 0)
    return table.loc[held_out, [*first, *(name for name in table if name not in first)]]


def findings(compared: pd.DataFrame, reference: str = "distpert") -> list[str]:
    """Sentences about the scores on which the reference is not best, or not clearly best.

    ``compared`` are the rows of `differences` for one category.
    """
    sentences = []
    for name, heading in HEADINGS.items():
        rows = compared[(compared["score"] == name) & compared["difference"].notna()]
        if rows.empty:
            continue
        digits = decimals(rows["difference"])
        sign = -1 if rows["better"].iloc[0] == "lower" else 1
        ahead, unclear = [], []
        for row in rows.itertuples():
            gain, chance = sign * row.difference, row.lower <= 0 <= row.upper
            low, high = sorted((sign * row.lower, sign * row.upper))
            if gain > 0:
                by = f"`{row.model}` is better by {number(gain, digits)} ({_interval(low, high, digits)})"
                ahead.append((-gain, by + ", but the interval includes 0" * chance))
            elif chance:
                by = f"than `{row.model}` by {number(-gain, digits)} ({_interval(-high, -low, digits)})"
                unclear.append((-gain, by))
        if ahead:
            sentences.append(f"{heading}: {reference} is not best. {_joined(ahead)}.")
        if unclear:
            sentences.append(f"{heading}: {reference} is better, but the interval includes 0: {_joined(unclear)}.")
    return sentences


def _joined(weighted: Sequence[tuple[float, str]]) -> str:
    return "; ".join(text for _, text in sorted(weighted))


def _interval(low: float, high: float, digits: int) -> str:
    return f"{number(low, digits)} to {number(high, digits)}"


def decimals(differences_: pd.Series) -> int:
    """Decimals that show three digits of a typical difference."""
    sizes = differences_.abs()
    sizes = sizes[(sizes > 0) & np.isfinite(sizes)]
    return int(np.clip(2 - np.floor(np.log10(sizes.median())), 2, 7)) if len(sizes) else 4


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Format with this many decimals and a real minus sign; NaN is a dash."""
    if np.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", "−")  # 0.0: no minus zero


def score_rows(table: pd.DataFrame, better: Mapping[str, str], reference: str) -> list[list[str]]:
    """Table of scores, the best in bold; a ceiling is shown only where it is better than some model."""
    models = table.drop(index=HALVES)
    columns = {}
    for name, heading in HEADINGS.items():
        if name not in table:
            continue
        values, sign = models[name], 1 if better[name] == "lower" else -1
        digits = decimals(values.drop(index=reference) - values[reference])
        shown = {model: number(value, digits) for model, value in values.items()}
        if values.notna().any():
            best = number(sign * (sign * values).min(), digits)
            shown = {model: f"**{text}**" if text == best else text for model, text in shown.items()}
        ceiling = table.loc[HALVES, name]
        shown[HALVES] = number(ceiling if (sign * (values - ceiling) > 0).any() else np.nan, digits)
        columns[heading] = shown
    return [["", *columns], *([model, *(shown[model] for shown in columns.values())] for model in table.index)]


def difference_rows(compared: pd.DataFrame, group: Mapping[str, str]) -> list[list[str]]:
    """Table of differences, with a row for each model and a column for each score of the group."""
    there = {name: heading for name, heading in group.items() if name in set(compared["score"])}
    rows = {model: [str(model)] for model in compared["model"].unique()}
    for name in there:
        part = compared[compared["score"] == name].set_index("model")
        digits = decimals(part["difference"])
        for model, cells in rows.items():
            difference, low, high = part.loc[model, ["difference", "lower", "upper"]].astype(float)
            interval = "" if np.isnan(difference) else f" ({_interval(low, high, digits)})"
            cells.append(number(difference, digits, sign=True) + interval)
    return [["", *there.values()], *rows.values()]


def seconds_rows(scores: xr.Dataset) -> list[list[str]]:
    """Table of seconds, over the folds that were run."""
    seconds = scores["seconds"].transpose("model", "fold").to_pandas()
    rows = [
        [str(model), *(number(value, 2) for value in (row.mean(), row.min(), row.max()))]
        for model, row in seconds.iterrows()
    ]
    return [["", "mean", "least", "most"], *rows]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table; the first row is the head."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def page(
    title: str,
    about: Mapping[str, str],
    scores: xr.Dataset,
    compared: pd.DataFrame,
    pictures: Mapping[str, Sequence[str]],
    reference: str = "distpert",
) -> str:
    """Return the text of the report; ``pictures`` are file names by category."""
    there = categories(scores)
    parts = [f"# {title}", markdown([["what was run", ""], *([name, value] for name, value in about.items())])]
    for category in there[1:] or there:
        parts += _section(category, scores, compared[compared["category"] == category], reference)
        parts += [f"![{name}]({name})" for name in pictures.get(category, ())]
    if there[1:]:
        parts += ["## All together", *(f"![{name}]({name})" for name in pictures.get(ALL, ()))]
    parts += ["## Seconds of fitting a fold", markdown(seconds_rows(scores))]
    parts += ["Wall time of each fit; the first fold of a model may include compilation."]
    return "\n\n".join(parts) + "\n"


def _section(category: str, scores: xr.Dataset, compared: pd.DataFrame, reference: str) -> list[str]:
    chosen, table = of_category(scores, category), mean_scores(scores, category)
    better = {str(name): array.attrs.get("better", "") for name, array in scores.data_vars.items()}
    means = each_perturbation(chosen["rmae_mean"]).notnull().sum("perturbation").to_series()
    parts = [
        f"## {title_of(category)}",
        f"Means over {means.max()} perturbations, best in bold. Lower is better, except for Pearson. A dash: the "
        "method has no such score (some predict means only, and the control has no shift from itself). Last row: one "
        "half of the held-out cells as a prediction of the other half, where it is better than some model.",
        markdown(score_rows(table, better, reference)),
    ]
    if lacking := [f"`{model}` lacks {means.max() - n}" for model, n in means.items() if n < means.max()]:
        parts.append(f"Of these perturbations {', '.join(lacking)}; differences use the perturbations that both have.")
    if compared.empty:
        return [*parts, "Too few perturbations to compare models."]
    found = findings(compared, reference)
    sure = f"{reference} is best on every score, and every interval excludes 0."
    parts.append("\n".join(f"- {sentence}" for sentence in found or [sure]))
    parts.append(f"### Differences from {reference}")
    parts.append(
        f"Mean over perturbations of the model's score minus the score of {reference}, and its 95 % interval "
        f"(bootstrap over perturbations). Above 0, {reference} is better; for Pearson, below 0."
    )
    return [*parts, *(markdown(difference_rows(compared, group)) for group in GROUPS.values())]
