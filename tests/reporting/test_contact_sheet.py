import cv2
import numpy as np
import pytest

from lemlight.errors import LemlightError
from lemlight.plots.sheets import PER_ROW, Thumbnail, contact_sheet


def thumbnail(shape=(120, 80), lesions=None, **options):
    return Thumbnail(np.linspace(0, 1, shape[0] * shape[1]).reshape(shape), lesions, options.pop("label", 0), **options)


def square(shape=(120, 80)):
    mask = np.zeros(shape, bool)
    mask[40:80, 20:50] = True
    return mask


def green_pixels(path):
    """Those nearly of the colour of the outlines, BGR of #009E73."""
    image = cv2.imread(str(path)).astype(int)
    return int((np.abs(image - (0x73, 0x9E, 0x00)).sum(axis=2) < 40).sum())


@pytest.mark.parametrize(
    ("item", "caption"),
    [
        (thumbnail(split="test"), "benign, test\nlesions unknown"),
        (thumbnail(label=1), "malignant\nlesions unknown"),
        (thumbnail(lesions=np.zeros((120, 80), bool)), "benign\nno lesion"),
        (thumbnail(lesions=square()), "benign\nlesion"),
        (thumbnail(lesions=square(), types=("mass", "", "mass")), "benign\nmass, lesion"),
    ],
)
def test_the_caption_says_what_is_known(item, caption):
    assert item.caption() == caption


def test_lesions_are_outlined_and_explained(tmp_path):
    marked = contact_sheet([thumbnail(lesions=square())], tmp_path / "marked.png")
    plain = contact_sheet([thumbnail(lesions=np.zeros((120, 80), bool))], tmp_path / "plain.png")
    assert green_pixels(marked) > 100
    assert green_pixels(plain) == 0


def test_a_lesion_that_fills_the_image_and_one_of_a_pixel_are_seen(tmp_path):
    single = np.zeros((120, 80), bool)
    single[0, 0] = True
    for name, mask in (("full", np.ones((120, 80), bool)), ("single", single)):
        legend = 60  # px that its line takes at most
        assert green_pixels(contact_sheet([thumbnail(lesions=mask)], tmp_path / f"{name}.png")) > legend


@pytest.mark.parametrize("count", [1, PER_ROW - 1, PER_ROW, PER_ROW + 1, 3 * PER_ROW])
def test_rows_fill_up(tmp_path, count):
    height, width = cv2.imread(str(contact_sheet([thumbnail()] * count, tmp_path / "sheet.png"))).shape[:2]
    one_row, _ = cv2.imread(str(contact_sheet([thumbnail()], tmp_path / "one.png"))).shape[:2]
    assert round(height / one_row) == -(-count // PER_ROW)
    assert width <= 150 * 1.9 * PER_ROW + 1


def test_long_and_flat_images_stand_side_by_side(tmp_path):
    items = [thumbnail((300, 20)), thumbnail((20, 300), np.ones((20, 300), bool), types=("mass",))]
    assert cv2.imread(str(contact_sheet(items, tmp_path / "sheet.png"))).std() > 0


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "sheet.png"
    with pytest.raises(LemlightError, match="no images"):
        contact_sheet([], path)
    with pytest.raises(LemlightError, match="item 1"):
        contact_sheet([thumbnail(), thumbnail(lesions=np.zeros((80, 120), bool))], path)
    assert not path.exists()


def test_dollars_in_a_split_are_no_formula(tmp_path):
    assert contact_sheet([thumbnail(split="$\\frac$")], tmp_path / "sheet.png").is_file()
