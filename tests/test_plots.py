import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from distpert import count_histograms
from distpert.plots import plot_histogram


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_draws_what_is_predicted_and_observed(context_screen, context_fit, ax):
    label, gene, context = context_fit.perturbations[0], context_fit.genes[3], context_fit.contexts[1]
    prediction = context_fit.predict(context_fit.perturbations[:2], num_draws=50)
    cells = count_histograms(context_screen.adata, bins=context_fit.histograms, context_key="context")
    returned = plot_histogram(prediction, label, gene, context=context, observed=cells, ax=ax)
    assert returned is ax
    assert ax.get_title() == gene
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    control, predicted, observed = (line.get_ydata() for line in ax.get_lines())
    where = {"perturbation": label, "gene": gene, "context": context}
    shown = context_fit.histograms.counts.to_numpy()[:, 3].sum(axis=0) > 0
    np.testing.assert_allclose(predicted, prediction.histogram().sel(where).to_numpy()[shown], rtol=1e-6)
    np.testing.assert_allclose(control, context_fit.control[1, 3][shown], rtol=1e-6)
    assert observed.sum() == pytest.approx(1)
    (band,) = ax.collections
    interval = prediction.histogram_interval(n_cells=60).sel(where)
    vertices = band.get_paths()[0].vertices[:, 1]
    assert vertices.max() == pytest.approx(float(interval.sel(statistic="upper").max()), rel=1e-5)


def test_without_cells_and_axes(fitted):
    prediction = fitted.predict(fitted.perturbations[0], num_draws=20)
    ax = plot_histogram(prediction, fitted.perturbations[0], fitted.genes[0])
    assert len(ax.get_lines()) == 2
    assert "of probability" in ax.get_legend_handles_labels()[1][1]
    plt.close(ax.figure)


def test_unknown_names(context_fit, ax):
    prediction = context_fit.predict(context_fit.perturbations[0], num_draws=5)
    label, gene = context_fit.perturbations[0], context_fit.genes[0]
    with pytest.raises(KeyError, match="'NOPE' is none of the perturbations predicted"):
        plot_histogram(prediction, "NOPE", gene, ax=ax)
    with pytest.raises(KeyError, match="'NOPE' is none of the genes predicted"):
        plot_histogram(prediction, label, "NOPE", ax=ax)
    with pytest.raises(KeyError, match="'NOPE' is none of the contexts predicted"):
        plot_histogram(prediction, label, gene, context="NOPE", ax=ax)
    with pytest.raises(KeyError, match="say which context to plot: context0, context1"):
        plot_histogram(prediction, label, gene, ax=ax)
