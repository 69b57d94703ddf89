"""The FROC curve as it is drawn."""

import matplotlib.image
import numpy as np
import pytest

from lemlight.plots import curves as froc
from lemlight.plots.curves import curve_points, froc_figure

FROC = {
    "mean": {"value": 0.5, "low": 0.4, "high": 0.6},
    "at": {
        "0.25": {"value": 0.2, "low": 0.1, "high": 0.3},
        "1": {"value": 0.5, "low": 0.45, "high": 0.6},
        "8": {"value": 0.75, "low": None, "high": None, "reason": "one patient"},
    },
    "curve": {"false_positives_per_image": [0, 0, 0.25, 0.25, 1, 2], "sensitivity": [0, 0.1, 0.15, 0.2, 0.5, 0.75]},
}


@pytest.fixture
def drawn(monkeypatch):
    """The figures instead of files, to be looked at from inside."""
    figures = []
    monkeypatch.setattr(froc, "save", lambda figure, path: figures.append(figure) or path)
    return figures


def test_the_froc_curve_shows_its_points_with_their_intervals(drawn, tmp_path):
    froc_figure(FROC, tmp_path / "froc.png")
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] == 0.125
    assert list(axes.get_xticks()) == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    (reported,) = axes.containers
    np.testing.assert_array_equal(reported.lines[0].get_xydata(), [[0.25, 0.2], [1, 0.5], [8, 0.75]])
    bars = [segment[:, 1].tolist() for segment in reported.lines[2][0].get_segments()]
    np.testing.assert_allclose(bars, [[0.1, 0.3], [0.45, 0.6], [0.75, 0.75]])
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "mean of the points 0.500 (95 %: 0.400 to 0.600)" in legend


def test_the_froc_curve_is_drawn_straight_between_its_points_and_level_behind_them():
    rates, sensitivity = FROC["curve"]["false_positives_per_image"], FROC["curve"]["sensitivity"]
    x, y = curve_points(rates, sensitivity)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    between = (x > 1) & (x < 2)
    assert between.sum() > 20
    np.testing.assert_allclose(y[between], 0.5 + 0.25 * (x[between] - 1))
    np.testing.assert_array_equal(y[x > 2], 0.75)
    assert x[-1] > 8
    assert sorted(y[x == 0.25]) == [0.15, 0.15, 0.2, 0.2]  # a jump, with both its ends


def test_the_froc_figure_is_a_picture(tmp_path):
    assert matplotlib.image.imread(froc_figure(FROC, tmp_path / "froc.png")).std() > 0.01


def test_a_froc_curve_of_one_point_and_of_none(drawn, tmp_path):
    one = {"mean": {"value": 1.0}, "at": {"1": {"value": 1.0}}}
    froc_figure(one | {"curve": {"false_positives_per_image": [0], "sensitivity": [1]}}, tmp_path / "one.png")
    assert "reported" in [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    none = {"mean": {"value": None, "reason": "no image with a lesion"}, "at": {"1": {"value": None}}}
    froc_figure(none | {"curve": {"false_positives_per_image": [], "sensitivity": []}}, tmp_path / "none.png")
    assert [text.get_text() for text in drawn[1].axes[0].texts] == ["no image with a lesion"]
