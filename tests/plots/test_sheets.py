import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.plots.sheets import (
    PER_ROW,
    SheetItem,
    Thumbnail,
    cell_centres,
    choose_examples,
    contact_sheet,
    image_sheet,
)


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


def test_extrema_stand_in_the_middle_of_their_cells_on_a_map_that_is_not_square():
    cells = np.zeros((2, 3), dtype=bool)
    cells[0, 0] = cells[1, 2] = True
    x, y = cell_centres(cells, (8, 30))  # cells of 4 x 10 px; the first covers pixels 0 to 9, centre 4.5
    np.testing.assert_array_equal(x, [4.5, 24.5])
    np.testing.assert_array_equal(y, [1.5, 5.5])
    x, y = cell_centres(np.ones((3, 4), dtype=bool), (3, 4))  # a map as large as the image: on the pixels
    np.testing.assert_array_equal(x.reshape(3, 4)[0], np.arange(4))
    np.testing.assert_array_equal(y.reshape(3, 4)[:, 0], np.arange(3))


def test_maps_lie_over_their_images_and_share_one_symmetric_scale(drawn, tmp_path):
    items = [make_item(1), make_item(0, 50, 90, (5, 9), scale=7.0), make_item(1, 33, 33, (1, 1), mask=False)]
    image_sheet(items, tmp_path / "sheet.png")
    shown = [axes for axes in drawn[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in shown[:4]] == ["malignant", "p = 0.80", "benign", "p = 0.12"]
    largest = max(np.abs(item.score_map).max() for item in items)
    for item, axes in zip(items, shown[1::2], strict=True):
        grey, overlay = axes.images
        assert grey.get_extent() == overlay.get_extent()
        np.testing.assert_array_equal(overlay.get_array(), item.score_map)
        assert overlay.get_clim() == (-largest, largest)
        maxima, minima = axes.collections
        for marks, cells in ((maxima, item.maxima), (minima, item.minima)):
            expected = np.stack(cell_centres(cells, item.image.shape), axis=1)
            np.testing.assert_allclose(marks.get_offsets(), expected)


def test_true_lesions_are_outlined_where_a_mask_is_known_also_along_the_border(drawn, tmp_path):
    border = make_item(1)
    border.mask[:] = False
    border.mask[:7, :9] = True
    image_sheet([make_item(1), border, make_item(0, mask=False)], tmp_path / "sheet.png")
    inside, along, without = (axes for axes in drawn[0].axes if axes.get_title() in ("malignant", "benign"))
    for axes, expected in ((inside, (4.5, 9.5, 29.5, 19.5)), (along, (-0.5, -0.5, 8.5, 6.5))):
        x, y = axes.lines[0].get_data()
        assert (x.min(), y.min(), x.max(), y.max()) == expected
    assert not without.lines


def test_a_map_of_zeros_without_extrema_can_be_drawn(drawn, tmp_path):
    nothing = np.zeros((4, 3), dtype=bool)
    image_sheet([SheetItem(np.zeros((9, 7)), np.zeros((4, 3)), nothing, nothing, None, 0, 0.5)], tmp_path / "sheet.png")
    assert drawn[0].axes[1].images[1].get_clim() == (-1, 1)


def scored(pairs):
    return pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(len(pairs))],
            "label": [label for label, _ in pairs],
            "probability": [0.9 if predicted else 0.1 for _, predicted in pairs],
        }
    )


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


def thumbnail(shape=(120, 80), lesions=None, **options):
    return Thumbnail(np.linspace(0, 1, shape[0] * shape[1]).reshape(shape), lesions, options.pop("label", 0), **options)


def lesion(down, across):
    mask = np.zeros((120, 80), bool)
    mask[down, across] = True
    return mask


SQUARE, NONE = lesion(slice(40, 80), slice(20, 50)), np.zeros((120, 80), bool)


def test_the_caption_of_a_thumbnail_says_what_is_known():
    assert thumbnail(split="test").caption() == "benign, test\nlesions unknown"
    assert thumbnail(label=1, lesions=NONE).caption() == "malignant\nno lesion"
    assert thumbnail(lesions=SQUARE).caption() == "benign\nlesion"
    assert thumbnail(lesions=SQUARE, types=("mass", "", "mass")).caption() == "benign\nmass, lesion"


@pytest.mark.parametrize(
    ("mask", "least", "most"),
    [
        (NONE, 0, 0),
        (SQUARE, 100, 10**6),
        (np.ones((120, 80), bool), 61, 10**6),  # more than the 60 px that the legend's line takes at most
        (lesion(0, 0), 61, 10**6),
    ],
)
def test_lesions_on_a_contact_sheet_are_outlined_in_green(tmp_path, mask, least, most):
    image = cv2.imread(str(contact_sheet([thumbnail(lesions=mask)], tmp_path / "sheet.png"))).astype(int)
    green = (np.abs(image - (0x73, 0x9E, 0x00)).sum(axis=2) < 40).sum()
    assert least <= green <= most


def test_the_rows_of_a_contact_sheet_fill_up(tmp_path):
    sheets = (contact_sheet([thumbnail()] * count, tmp_path / "sheet.png") for count in (1, PER_ROW, PER_ROW + 1))
    one, full, more = (cv2.imread(str(sheet)).shape for sheet in sheets)
    assert [round(shape[0] / one[0]) for shape in (full, more)] == [1, 2]
    assert max(full[1], more[1]) <= 150 * 1.9 * PER_ROW + 1


def test_odd_shapes_and_hostile_words_are_drawn(tmp_path):
    items = [thumbnail((300, 20), split="$\\frac$"), thumbnail((20, 300), np.ones((20, 300), bool), types=("mass",))]
    assert cv2.imread(str(contact_sheet(items, tmp_path / "sheet.png"))).std() > 0
