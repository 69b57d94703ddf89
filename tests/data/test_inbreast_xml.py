"""The annotations of INbreast as they stand in its files, and how its headers join patients."""

import pandas as pd
import pytest

from lemlight.data.datasets.inbreast import lesions_in, patients, read_annotations
from lemlight.errors import ImageError
from tests.layouts.inbreast import save_regions, spoil


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<plist version='1.0'><dict/></plist>",
        "<plist version='1.0'><dict><key>Images</key><array/></dict></plist>",
        "<plist version='1.0'><array><string>Images</string></array></plist>",
        '<!DOCTYPE p [<!ENTITY a "a">]><plist version="1.0"><dict><key>Images</key><string>&a;</string></dict></plist>',
    ],
)
def test_xml_that_is_no_annotation(tmp_path, text):
    path = tmp_path / "20586908.xml"
    path.write_text(text)
    with pytest.raises(ImageError, match=r"20586908\.xml is no property list"):
        read_annotations(path)


@pytest.mark.parametrize("point", ["(1, nan)", "(1)", "1, 2", "", "(1, 2", "(1,,2)"])
def test_a_point_that_is_no_pair_of_numbers(tmp_path, point):
    path = tmp_path / "1.xml"
    save_regions(path, [("Mass", [(1, 2)])])
    spoil(path, "(1.000000, 2.000000)", point)
    with pytest.raises(ImageError):
        read_annotations(path)


def test_regions_without_a_name_and_with_a_third_coordinate(tmp_path):
    path = tmp_path / "1.xml"
    save_regions(path, [("Mass", [(1.5, 2.5)]), ("pectoral  MUSCLE", [(0, 0)] * 3)])
    spoil(path, "<key>Name</key>", "<key>Title</key>")
    spoil(path, "(1.500000, 2.500000)", "(1.5e0, 2.5, 0.0)")
    assert read_annotations(path) == [("", ((1.5, 2.5),))]


@pytest.mark.parametrize(("x", "known"), [(-1.9, True), (-2.1, False), (200.9, True), (201.1, False)])
def test_a_vertex_may_lie_a_hundredth_of_the_side_beyond_the_edge(x, known):
    regions = [("mass", ((x, 10.0), (100.0, 10.0), (100.0, 20.0)))]
    if known:
        (lesion,) = lesions_in(regions, (256, 200))
        assert lesion.points[0][0] in (0.0, 199.0)
        assert lesion.draw((256, 200)).any()
    else:
        with pytest.raises(ImageError, match="outside"):
            lesions_in(regions, (256, 200))


def test_a_region_without_points_makes_the_lesions_unknown():
    with pytest.raises(ImageError, match="without points"):
        lesions_in([("mass", ()), ("mass", ((1.0, 1.0),))], (10, 10))


def series(*values):
    return pd.Series(list(values), index=range(5, 5 + len(values)))


@pytest.mark.parametrize(
    ("hashes", "header", "expected"),
    [
        ("abc", ("1", "1", "2"), "aac"),  # the header joins
        ("aab", ("1", "2", "3"), "aab"),  # the header splits: the hash holds
        ("abcd", ("1", "2", "2", ""), "abbd"),
        ("abca", ("1", "1", "2", "2"), "aaaa"),  # joined by way of another
        ("abc", ("removed", "REMOVED", "Anonymous"), "abc"),
        ("abcde", ("0", "0", "0", "1", "1"), "abcdd"),  # more than half of the hashes: a placeholder
        ("ba", ("", ""), "ba"),
    ],
)
def test_patients(hashes, header, expected):
    assert "".join(patients(series(*hashes), series(*header))) == expected
