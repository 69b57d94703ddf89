import pytest

from lemlight.data.datasets.vindr import Finding, lesions_of, reaches_beyond, read_categories
from lemlight.data.lesions import Lesion
from lemlight.errors import ImageError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("['Mass']", ("Mass",)),
        ('["Skin Retraction", "Mass"]', ("Skin Retraction", "Mass")),
        ("Mass", None),
        ("'Mass'", ("Mass",)),
        ("[]", None),
        ("[1]", None),
        ("['Elephant']", None),
        ("__import__('os').system('true')", None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_categories_are_read_and_never_executed(text, names):
    assert read_categories(text) == names


def finding(box=("10", "20", "30.5", "40"), names=("Mass",)):
    return Finding(names, box)


NONE = ("", "", "", "")


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ([], "no row"),
        ([finding(NONE)], "without a box"),
        ([finding(("10", "", "30", "40"))], "without a box"),
        ([finding(), finding(NONE)], "without a box"),
        ([finding(("10", "20", "ten", "40"))], "no numbers"),
        ([finding(("10", "20", "nan", "40"))], "without extent"),
        ([finding(("10", "20", "inf", "40"))], "without extent"),
        ([finding(("10", "20", "10", "40"))], "without extent"),
        ([finding(("30", "20", "10", "40"))], "without extent"),
        ([finding(("-19", "20", "0", "40"))], "outside"),
        ([finding(("200", "20", "220", "40"))], "outside"),
        ([finding(("10", "-19", "30", "0"))], "outside"),
        ([finding(("10", "100", "30", "120"))], "outside"),
        ([finding(), finding(("500", "500", "600", "600"))], "outside"),
        ([finding(names=("No Finding",))], "beside"),
        ([finding(NONE, ("No Finding",)), finding()], "beside"),
        ([finding(NONE, ("No Finding", "Mass"))], "beside"),
    ],
)
def test_lesions_that_are_not_known(findings, message):
    with pytest.raises(ImageError, match=message):
        lesions_of(findings, (100, 200))


def test_lesions_that_are_known():
    shape = (100, 200)
    box = Lesion("box", "mass", points=((10.0, 20.0), (30.5, 40.0)))
    assert lesions_of([finding(NONE, ("No Finding",))] * 2, shape) == ()
    assert lesions_of([finding(), finding(("-2", "-1", "202", "101"), ("Skin Thickening",)), finding()], shape) == (
        box,
        Lesion("box", "other", points=((0.0, 0.0), (199.0, 99.0))),
    )
    assert lesions_of([finding(names=("Nipple Retraction", "Suspicious Calcification"))], shape)[0].type == (
        "calcification"
    )


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        (("-50", "20", "30", "40"), ((0, 20), (30, 40))),
        (("10", "-0.5", "30", "40"), ((10, 0), (30, 40))),
        (("150", "20", "900", "40"), ((150, 20), (199, 40))),
        (("10", "20", "30", "100.5"), ((10, 20), (30, 99))),
        (("-9", "-9", "900", "900"), ((0, 0), (199, 99))),
        (("199.5", "99.5", "210", "110"), ((199, 99), (199, 99))),
        (("-10", "-10", "0.5", "0.5"), ((0, 0), (0.5, 0.5))),
    ],
)
def test_a_box_that_overlaps_the_image_is_cut_at_its_edge(box, corners):
    assert reaches_beyond(finding(box), (100, 200))
    (lesion,) = lesions_of([finding(box)], (100, 200))
    assert lesion.points == corners
    drawn, note = lesion.draw_with_note((100, 200))
    assert drawn.any()
    assert note == ""


@pytest.mark.parametrize("box", [NONE, ("0", "0", "200", "100"), ("10", "20", "30", "40")])
def test_a_box_inside_the_image_is_not_cut(box):
    assert not reaches_beyond(finding(box), (100, 200))
