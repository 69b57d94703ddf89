import pandas as pd
import pytest

from lemlight.plots.overlays import choose_overlays, type_of


def images(*rows):
    return pd.DataFrame(rows, columns=["image_id", "dsc", "type"])


def numbered(count, kind, first=0):
    return [(f"{kind}{number}", number / 100, kind) for number in range(first, first + count)]


def test_each_type_shows_its_best_its_median_and_its_worst():
    titles = choose_overlays(images(*numbered(11, "mass"), *numbered(7, "calcification")))
    assert titles == {
        "mass10": "mass, best: DSC 0.10",
        "mass5": "mass, median: DSC 0.05",
        "mass0": "mass, worst: DSC 0.00",
        "calcification6": "calcification, best: DSC 0.06",
        "calcification3": "calcification, median: DSC 0.03",
        "calcification0": "calcification, worst: DSC 0.00",
    }


def test_lesions_of_one_type_fill_the_sheet():
    titles = choose_overlays(images(*numbered(30, "mass")))
    assert [title.split(":")[0] for title in titles.values()] == [
        f"mass, {place}" for place in ("best", "median", "worst") for _ in range(3)
    ]


def test_lesions_of_unknown_type_have_the_place_alone():
    assert list(choose_overlays(images(("a", 0.5, ""))).values()) == ["best: DSC 0.50"]


@pytest.mark.parametrize("count", range(12))
def test_few_images_are_shown_once_each(count):
    titles = choose_overlays(images(*numbered(count, "mass")))
    assert len(titles) == min(count, 3 * max(1, min(3, count // 3)))


def test_images_without_a_lesion_are_left_out_and_rare_types_too():
    rare = [(f"{kind}{n}", 0.5, kind) for kind, n in (("mass", 1), ("mass", 2), ("x", 1), ("x", 2), ("y", 1), ("y", 2))]
    titles = choose_overlays(images(*rare, ("z", 0.5, "z"), ("healthy", float("nan"), "")))
    assert not {"z", "healthy"} & set(titles)
    assert len(titles) == 6


@pytest.mark.parametrize(
    ("types", "name"), [((), ""), (("mass", "mass"), "mass"), (("mass", "calcification"), "several types"), (("",), "")]
)
def test_the_lesions_of_an_image_have_one_name(types, name):
    assert type_of(types) == name
