"""Overlays as they are drawn: what lies where, in px of the original, and that nothing else is ever drawn."""

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.localization.regions import Region
from lemlight.plots import overlays
from lemlight.plots.overlays import (
    BENIGN,
    HEAT,
    LESION,
    LONGEST,
    REGION,
    OverlayItem,
    choose_overlays,
    draw_pair,
    legend_of,
    overlay_figure,
    overlay_sheet,
    type_of,
)


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


@pytest.fixture
def said(monkeypatch):
    """What is written into a picture, and where, instead of writing it."""
    texts = []
    monkeypatch.setattr(
        overlays, "_write", lambda picture, at, text, size, anchor, **more: texts.append((text, at, anchor))
    )
    return texts


def where(panel, colour):
    """First and last row and column of pixels of a colour."""
    rows, columns = np.nonzero((panel == colour).all(axis=2))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_map_regions_and_lesions_lie_in_px_of_the_original(said):
    item = make_item(image=np.full((96, 60), 0.2))
    plain, overlay = draw_pair(item, 960)  # ten px for each
    assert plain.shape == overlay.shape == (960, 600, 3)
    assert (plain[200:300] == 51).all()
    np.testing.assert_allclose(where(overlay, REGION), (504, 604, 84, 224), atol=3)
    np.testing.assert_allclose(where(overlay, LESION), (300, 399, 50, 249), atol=3)
    warm = (overlay[..., 0].astype(int) - overlay[..., 1] > 20).nonzero()  # red, as plasma is in the middle
    np.testing.assert_allclose(
        [axis.min() for axis in warm] + [axis.max() for axis in warm], [500, 100, 599, 199], atol=9
    )
    assert (said[0][0], said[0][2]) == ("20 mm", "ms")
    assert said[1] == ("0.75", (pytest.approx(141), pytest.approx(500, abs=9)), "ms")
    assert [text for text, _ in legend_of([item])] == ["suspicious region with its score", "true lesion"]


def test_colours_mean_the_same_whatever_the_map_and_zero_is_see_through(said):
    for level in (0.0, 0.2, 1.0):
        image = np.full((96, 60), 0.4)
        item = make_item(image=image, strength=np.full((96, 60), level), lesions=None, regions=[], spacing=None)
        plain, overlay = draw_pair(item, 96)
        colour, opacity = HEAT[round(255 * level), :3], HEAT[round(255 * level), 3] / 255
        np.testing.assert_allclose(overlay[5, 5], 102 * (1 - opacity) + colour * opacity, atol=1)
        assert np.array_equal(plain, overlay) == (level == 0)
    assert HEAT[0, 3] == 0 < HEAT[255, 3] < 255


@pytest.mark.parametrize("lesions", [None, np.zeros((96, 60), bool)])
def test_a_map_of_zeros_is_stated_and_without_lesions_none_is_drawn_or_explained(said, lesions):
    item = make_item(strength=np.zeros((96, 60)), lesions=lesions, regions=[], spacing=None)
    plain, overlay = draw_pair(item, 400)
    assert [text for text, *_ in said] == ["no extremum"]
    np.testing.assert_array_equal(plain, overlay)
    assert not legend_of([item])


def test_scores_stand_beside_their_regions_and_a_region_that_speaks_for_benign_has_none(said):
    regions = [square(5, 0, 20, 9, 0.25), square(30, 40, 40, 70, 0.5), square(5, 60, 20, 69, None)]
    item = make_item(regions=regions, lesions=None, spacing=None)
    _, overlay = draw_pair(item, 96 * 8)
    (below, at, under), (above, over, on), (benign, *_) = said
    assert (below, under, above, on, benign) == ("0.25", "ma", "0.50", "ms", "benign")  # below at the upper edge
    assert at[1] > 9 * 8
    assert over[1] < 40 * 8
    assert where(overlay, BENIGN)[0] == pytest.approx(60 * 8, abs=6)
    assert [text for text, _ in legend_of([item])] == [
        "suspicious region with its score",
        "region that speaks for benign",
    ]


@pytest.mark.parametrize(
    ("spacing", "label", "pixels"),
    [((9, 1.0), "20 mm", 20), ((9, 0.05), "1 mm", 20), ((9, 2), "20 mm", 10), (None, "", 0), ((0.001, 0.001), "", 0)],
)
def test_the_scale_bar_is_as_long_as_it_says_and_missing_where_it_cannot_be_drawn(said, spacing, label, pixels):
    item = make_item(image=np.full((96, 60), 0.3), spacing=spacing, regions=[], lesions=None)
    plain, _ = draw_pair(item, 960)
    white = (plain == 255).all(axis=(2)).sum(axis=1).max()
    assert white == pixels * 10
    assert [text for text, *_ in said] == ([label] if label else [])


def test_large_images_are_drawn_smaller_and_small_ones_larger_in_their_own_px(said):
    strength = np.zeros((2 * LONGEST, 1001))
    strength[1000:1200, 200:400] = 1
    image = np.zeros_like(strength)
    _, overlay = draw_pair(make_item(image=image, strength=strength, lesions=None, regions=[]), LONGEST)
    assert overlay.shape == (1200, 500, 3)
    assert overlay[550, 150].max() > 150
    rows, columns = np.nonzero(overlay.max(axis=2) > 100)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((500, 599, 100, 199), abs=1)
    assert draw_pair(make_item(), LONGEST)[0].shape == (1200, 750, 3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (300, 3)])
def test_any_shape_can_be_drawn(tmp_path, shape):
    item = make_item(image=np.ones(shape), strength=np.ones(shape), lesions=np.ones(shape, bool), regions=[])
    overlay_figure(item, tmp_path / "figure.png")
    overlay_sheet([item], tmp_path / "sheet.png", ["one"])
    assert all(max(cv2.imread(str(path)).shape) < 4000 for path in tmp_path.iterdir())


def test_the_same_item_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        overlay_figure(make_item(image_id=r"$\broken$ \u0394\u0416"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_sheet_holds_the_pair_of_every_image_three_in_a_row(tmp_path):
    items = [make_item(50 + 9 * n, 40 + n, image_id=f"i{n}", lesions=None, regions=[]) for n in range(4)]
    overlay_sheet(items, tmp_path / "sheet.png", ["best", "median", "worst", "more"])
    page = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    places = []
    for item in items:
        for panel in draw_pair(item, overlays.IN_A_SHEET):
            _, best, _, place = cv2.minMaxLoc(cv2.matchTemplate(page[::2, ::2], panel[::2, ::2], cv2.TM_CCORR_NORMED))
            assert best > 0.98
            places.append(place)
    assert [y for _, y in places[:6]] == [places[0][1]] * 6
    assert places[0][0] < places[1][0] < places[2][0] < places[5][0]
    assert places[6][0] == places[0][0]
    assert places[6][1] >= places[0][1] + overlays.IN_A_SHEET // 2


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
