import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.plots import sheets as sheet
from lemlight.plots.sheets import SheetItem, choose_examples, image_sheet


def make_item(label=1, height=96, width=60, scores=(4, 3), scale=1.0, mask=True):
    generator = np.random.default_rng(height + label)
    score_map = scale * generator.normal(size=scores)
    lesion = np.zeros((height, width), dtype=bool)
    lesion[10:20, 5:30] = True
    return SheetItem(
        image=generator.random((height, width)),
        score_map=score_map,
        maxima=score_map == score_map.max(),
        minima=score_map == score_map.min(),
        mask=lesion if mask else None,
        label=label,
        probability=0.8 if label else 0.125,
    )


@pytest.fixture
def drawn(monkeypatch):
    figures, save = [], sheet.save
    monkeypatch.setattr(sheet, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def test_extrema_stand_in_the_middle_of_their_cells_on_a_map_that_is_not_square():
    cells = np.zeros((2, 3), dtype=bool)
    cells[0, 0] = cells[1, 2] = True
    x, y = sheet.cell_centres(cells, (8, 30))  # cells of 4 x 10 px; the first covers pixels 0 to 9, centre 4.5
    np.testing.assert_array_equal(x, [4.5, 24.5])
    np.testing.assert_array_equal(y, [1.5, 5.5])


def test_a_map_as_large_as_the_image_has_its_centres_on_the_pixels():
    x, y = sheet.cell_centres(np.ones((3, 4), dtype=bool), (3, 4))
    np.testing.assert_array_equal(x.reshape(3, 4)[0], np.arange(4))
    np.testing.assert_array_equal(y.reshape(3, 4)[:, 0], np.arange(3))


def test_maps_lie_over_their_images_and_share_one_symmetric_scale(drawn, tmp_path):
    items = [make_item(1), make_item(0, 50, 90, (5, 9), scale=7.0), make_item(1, 33, 33, (1, 1), mask=False)]
    path = image_sheet(items, tmp_path / "sheet.png")
    shown = [axes for axes in drawn[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == [
        "malignant",
        "p = 0.80",
        "benign",
        "p = 0.12",
        "malignant",
        "p = 0.80",
    ]
    largest = max(np.abs(item.score_map).max() for item in items)
    for item, axes in zip(items, shown[1::2], strict=True):
        grey, overlay = axes.images
        assert grey.get_clim() == (0, 1)
        assert grey.get_extent() == overlay.get_extent()
        np.testing.assert_array_equal(overlay.get_array(), item.score_map)
        assert overlay.get_clim() == (-largest, largest)
        maxima, minima = axes.collections
        for marks, cells in ((maxima, item.maxima), (minima, item.minima)):
            expected = np.stack(sheet.cell_centres(cells, item.image.shape), axis=1)
            np.testing.assert_allclose(marks.get_offsets(), expected)
    assert matplotlib.image.imread(path).ndim == 3


def test_true_lesions_are_outlined_where_a_mask_is_known(drawn, tmp_path):
    image_sheet([make_item(1), make_item(0, mask=False)], tmp_path / "sheet.png")
    with_mask, without = (axes for axes in drawn[0].axes if axes.get_title() in ("malignant", "benign"))
    (outline,) = with_mask.collections
    bounds = outline.get_paths()[0].get_extents()
    assert (bounds.x0, bounds.x1, bounds.y0, bounds.y1) == (4.5, 29.5, 9.5, 19.5)
    assert not without.collections


def test_a_lesion_at_the_border_is_outlined_all_around(drawn, tmp_path):
    item = make_item()
    item.mask[:] = False
    item.mask[:7, :9] = True
    image_sheet([item], tmp_path / "sheet.png")
    bounds = drawn[0].axes[0].collections[0].get_paths()[0].get_extents()
    assert (bounds.x0, bounds.y0, bounds.x1, bounds.y1) == (-0.5, -0.5, 8.5, 6.5)


def test_a_map_of_zeros_without_extrema_can_be_drawn(drawn, tmp_path):
    nothing = np.zeros((4, 3), dtype=bool)
    image_sheet([SheetItem(np.zeros((9, 7)), np.zeros((4, 3)), nothing, nothing, None, 0, 0.5)], tmp_path / "sheet.png")
    assert drawn[0].axes[1].images[1].get_clim() == (-1, 1)


def test_a_score_of_zero_is_see_through_and_the_signs_differ_in_hue():
    benign, zero, malignant = sheet.OVERLAY([0.0, 0.5, 1.0])
    assert zero[3] < 0.01 < 0.5 < benign[3]
    assert benign[2] > benign[0]
    assert malignant[0] > malignant[2]


def test_shapes_that_do_not_fit_are_listed_together(tmp_path):
    good = make_item()
    bad = SheetItem(good.image, good.score_map, good.maxima.T, good.minima, good.mask[:5], 1, 0.5)
    broken = SheetItem(good.image, good.score_map * np.nan, good.maxima, good.minima, None, 1, 0.5)
    with pytest.raises(LemlightError, match=r"item 1: maxima \(3, 4\).*item 1: mask \(5, 60\).*item 2: .*NaN"):
        image_sheet([good, bad, broken], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_no_items_are_refused(tmp_path):
    with pytest.raises(LemlightError, match="there are none"):
        image_sheet([], tmp_path / "sheet.png")


def scored(pairs):
    return pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(len(pairs))],
            "label": [label for label, _ in pairs],
            "probability": [0.9 if called else 0.1 for _, called in pairs],
        }
    )


def test_examples_are_an_even_mix_of_right_and_wrong():
    predictions = scored([(1, 1)] * 20 + [(1, 0)] * 3 + [(0, 0)] * 20 + [(0, 1)] * 3)
    chosen = predictions.set_index("image_id").loc[choose_examples(predictions, 8, seed=0)]
    kinds = list(zip(chosen["label"], chosen["probability"] > 0.5, strict=True))
    assert kinds == [(1, True)] * 2 + [(1, False)] * 2 + [(0, False)] * 2 + [(0, True)] * 2


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=30), st.integers(1, 12), st.integers(0, 99))
def test_examples_are_distinct_repeatable_and_as_many_as_there_can_be(pairs, count, seed):
    predictions = scored(pairs)
    chosen = choose_examples(predictions, count, seed)
    assert len(set(chosen)) == len(chosen) == min(count, len(pairs))
    assert chosen == choose_examples(predictions, count, seed)
    kinds = predictions.set_index("image_id")
    kinds = kinds["label"].astype(str) + kinds["probability"].astype(str)
    taken, there = kinds[chosen].value_counts(), kinds.value_counts()
    most = taken.max() if len(taken) else 0
    for kind, available in there.items():
        assert taken.get(kind, 0) >= min(available, most - 1)


def test_another_seed_chooses_other_examples():
    predictions = scored([(1, 1)] * 50)
    assert choose_examples(predictions, 5, seed=0) != choose_examples(predictions, 5, seed=1)


def test_a_sheet_of_no_examples_is_refused():
    with pytest.raises(LemlightError, match="at least one"):
        choose_examples(scored([(1, 1)]), 0, seed=0)
