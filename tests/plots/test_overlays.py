"""Overlays as they are drawn: what lies where, in px of the original, and that nothing else is ever drawn."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from lemlight.localization.regions import Region
from lemlight.plots.overlays import HEAT, LONGEST, OverlayItem, choose_overlays, overlay_figure, overlay_sheet, type_of
from tests.plots.conftest import legend_texts, texts


def square(x0, y0, x1, y1, score=0.75):
    contour = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], dtype=float)
    evidence = "benign" if score is None else "malignant"
    mask = np.zeros((1, 1), dtype=bool)
    return Region((y0, x0, y1, x1), contour, 1.0, None, 1.0, evidence, score, (x0, y0), None, mask)


def make_item(height=96, width=60, **others):
    lesions = np.zeros((height, width), dtype=bool)
    lesions[30:40, 5:25] = True
    strength = np.zeros((height, width))
    strength[50:60, 10:20] = 0.5
    given = {
        "image_id": "image_0001_0a1b2c",
        "image": np.random.default_rng(0).random((height, width)),
        "strength": strength,
        "regions": [square(8, 50, 22, 60)],
        "probability": 0.8125,
        "prediction": "malignant",
        "lesions": lesions,
        "spacing": (0.5, 1.0),
    }
    return OverlayItem(**given | others)


def test_map_regions_and_lesions_lie_in_px_of_the_original(drawn, tmp_path):
    item = make_item()
    overlay_figure(item, tmp_path / "overlay.png")
    plain, heated = drawn[0].axes[:2]
    for axes in (plain, heated):
        np.testing.assert_allclose(axes.images[0].get_array(), item.image, rtol=1e-6)
        assert axes.images[0].get_extent() == [-0.5, 59.5, 95.5, -0.5]
    heat = heated.images[1]
    np.testing.assert_array_equal(heat.get_array(), item.strength.astype(np.float32))
    assert heat.get_extent() == [-0.5, 59.5, 95.5, -0.5]
    lesion, region = heated.lines
    x, y = lesion.get_data()
    assert (x.min(), x.max(), y.min(), y.max()) == (4.5, 24.5, 29.5, 39.5)
    np.testing.assert_array_equal(np.stack(region.get_data(), axis=1), item.regions[0].contour)
    assert texts(heated) == ["0.75"]
    assert legend_texts(drawn[0].legends[0]) == ["suspicious region with its score", "true lesion"]
    assert drawn[0].get_suptitle() == "predicted malignant, p = 0.812"
    assert plain.get_title(loc="left") == item.image_id


def test_colours_mean_the_same_whatever_the_map_and_zero_is_see_through(drawn, tmp_path):
    for highest in (0.0, 0.01, 1.0):
        overlay_figure(make_item(strength=np.full((96, 60), highest)), tmp_path / "overlay.png")
    assert {figure.axes[1].images[1].get_clim() for figure in drawn} == {(0, 1)}
    assert HEAT(0.0)[3] == 0 < HEAT(1.0)[3] < 1


@pytest.mark.parametrize("lesions", [None, np.zeros((96, 60), bool)])
def test_a_map_of_zeros_is_stated_and_without_lesions_none_is_drawn_or_explained(drawn, tmp_path, lesions):
    overlay_figure(make_item(strength=np.zeros((96, 60)), lesions=lesions, regions=[]), tmp_path / "overlay.png")
    assert texts(drawn[0].axes[1]) == ["no extremum"]
    assert not drawn[0].axes[1].lines + drawn[0].legends


def test_scores_stand_beside_their_regions_and_a_region_that_speaks_for_benign_has_none(drawn, tmp_path):
    regions = [square(5, 0, 20, 9, 0.25), square(30, 40, 40, 70, 0.5), square(5, 60, 20, 69, None)]
    overlay_figure(make_item(regions=regions, lesions=None), tmp_path / "o.png")
    axes = drawn[0].axes[1]
    below, above, benign = axes.texts
    assert (below.get_text(), below.xy, below.get_va()) == ("0.25", (11.0, 9.0), "top")  # at the upper edge
    assert (above.get_text(), above.xy[1], above.get_va()) == ("0.50", 40, "bottom")
    assert benign.get_text() == "benign"
    assert axes.lines[0].get_color() != axes.lines[2].get_color()
    assert legend_texts(drawn[0].legends[0]) == ["suspicious region with its score", "region that speaks for benign"]


@pytest.mark.parametrize(
    ("spacing", "label", "pixels"),
    [((9, 1.0), "20 mm", 20), ((9, 0.05), "1 mm", 20), ((9, 2), "20 mm", 10), (None, "", 0), ((0.001, 0.001), "", 0)],
)
def test_the_scale_bar_is_as_long_as_it_says_and_missing_where_it_cannot_be_drawn(
    drawn, tmp_path, spacing, label, pixels
):
    overlay_figure(make_item(spacing=spacing), tmp_path / "overlay.png")
    axes = drawn[0].axes[0]
    assert [np.ptp(bar.get_xdata()) for bar in axes.lines] == pytest.approx([pixels] if pixels else [])
    assert texts(axes) == ([label] if label else [])


def test_large_images_are_drawn_smaller_in_their_own_px(drawn, tmp_path):
    strength = np.zeros((2 * LONGEST, 1001))
    strength[1000:1200, 200:400] = 1
    item = make_item(image=strength, strength=strength, lesions=strength > 0, regions=[])
    overlay_figure(item, tmp_path / "overlay.png")
    grey, heat = drawn[0].axes[1].images
    assert grey.get_array().shape == heat.get_array().shape == (1600, 500)
    assert heat.get_extent() == [-0.5, 1000.5, 3199.5, -0.5]
    rows, columns = np.nonzero(heat.get_array().filled() > 0.5)
    assert (rows.min() * 2, rows.max() * 2 + 2) == (1000, 1200)
    assert columns.min() * 1001 / 500 == pytest.approx(200, abs=2)
    x, y = drawn[0].axes[1].lines[0].get_data()
    assert (x.min(), x.max(), y.min(), y.max()) == (199.5, 399.5, 999.5, 1199.5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (300, 3)])
def test_any_shape_can_be_drawn(tmp_path, shape):
    item = make_item(image=np.ones(shape), strength=np.ones(shape), lesions=np.ones(shape, bool), regions=[])
    overlay_figure(item, tmp_path / "figure.png")
    overlay_sheet([item], tmp_path / "sheet.png", ["one"])
    assert all(max(matplotlib.image.imread(path).shape) < 4000 for path in tmp_path.iterdir())


def test_the_same_item_gives_the_same_bytes_and_signs_in_a_name_are_no_formula(tmp_path):
    for name in ("a.png", "b.png"):
        overlay_figure(make_item(image_id=r"$\broken$"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not pyplot.get_fignums()
    overlay_sheet([make_item(image_id=r"$\broken$")], tmp_path / "c.png", [r"$\worse$"])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_sheet_has_a_title_and_a_pair_for_every_image(drawn, tmp_path):
    items = [make_item(50 + 9 * n, 40 + n, image_id=f"i{n}") for n in range(4)]
    overlay_sheet(items, tmp_path / "sheet.png", ["best", "median", "worst", "more"])
    shown = [axes for axes in drawn[0].axes if axes.images]
    plain, heated = shown[::2], shown[1:9:2]
    assert [axes.get_title(loc="left") for axes in plain[:4]] == ["best\ni0", "median\ni1", "worst\ni2", "more\ni3"]
    for item, left, right in zip(items, plain, heated, strict=False):
        np.testing.assert_allclose(left.images[0].get_array(), item.image, rtol=1e-6)
        np.testing.assert_allclose(right.images[1].get_array(), item.strength)
    assert heated[0].get_title(loc="left") == "predicted malignant, p = 0.81"


def chosen(**counts):
    """The titles of so many images of each type, the later the better their Dice."""
    rows = [(f"{kind}{number}", number / 100, kind) for kind, count in counts.items() for number in range(count)]
    return choose_overlays(pd.DataFrame(rows, columns=["image_id", "dsc", "type"]))


def test_each_type_shows_its_best_its_median_and_its_worst():
    assert chosen(mass=11, calcification=7) == {
        "mass10": "mass, best: Dice 0.10",
        "mass5": "mass, median: Dice 0.05",
        "mass0": "mass, worst: Dice 0.00",
        "calcification6": "calcification, best: Dice 0.06",
        "calcification3": "calcification, median: Dice 0.03",
        "calcification0": "calcification, worst: Dice 0.00",
    }


def test_lesions_of_one_type_fill_the_sheet_few_are_shown_once_each_and_unknown_types_have_the_place_alone():
    places = [title.split(":")[0] for title in chosen(mass=30).values()]
    assert places == ["mass, best"] * 3 + ["mass, median"] * 3 + ["mass, worst"] * 3
    for count in range(12):
        assert len(chosen(mass=count)) == min(count, 3 * max(1, min(3, count // 3)))
    assert list(chosen(**{"": 1}).values()) == ["best: Dice 0.00"]


def test_the_lesions_of_an_image_have_one_name():
    found = [type_of(types) for types in ((), ("mass", "mass"), ("mass", "calcification"), ("",))]
    assert found == ["", "mass", "several types", ""]
