import pandas as pd
import pytest

from lemlight.reporting.inventory_page import (
    Findings,
    Section,
    inventory_sections,
    names_text,
    sections_text,
    write_inventory_page,
)

SPLITS = [
    {"split": "train", "images": 1000, "malignant": 250, "patients": 300, "fraction": 0.5},
    {"split": "test", "images": 1000, "malignant": 100, "patients": 310, "fraction": 0.5},
]
LEAKS = {"scheme": "column", "splits": SPLITS, "patients": 1, "breasts": 0, "files": 0}
LESIONS = {"with_lesions": 1500, "without_lesions": 400, "unknown": 100, "rejected": 0, "notes": {}}
CHECKED = {
    "images": 2345,
    "used": 2000,
    "left_out": {"no decoder for RLE": 300, "cut short": 45},
    "duplicates": None,
    "duplicates_in_splits": None,
    "formats": {"DICOM, RLE Lossless": 2345},
    "greys": {"12 bits, MONOCHROME1": 2345},
    "sizes": {"4084 x 3328": 2000, "3328 x 2560": 345},
    "lesions": LESIONS | {"types": {"mass": 1200, "unknown": 400}},
    "leaks": LEAKS | {"warnings": ["1 patients are trained and tested on"]},
}
PREPARED = CHECKED | {
    "duplicates": 6,
    "duplicates_in_splits": 2,
    "lesions": LESIONS | {"rejected": 10, "types": {"mass": 1200}, "notes": {"FILE has another aspect": 10}},
}


def by_heading(*arguments, **options):
    return {section.heading: section for section in inventory_sections(*arguments, **options)}


def rows(section):
    return {row[0]: row[1:] for row in section.rows[1:]}


def test_found_expected_left_out_and_used_stand_together():
    section = by_heading(CHECKED, 3032)["Images"]
    assert rows(section) == {
        "found": ("2,345",),
        "in the whole data set as published": ("3,032",),
        "left out": ("345",),
        "used": ("2,000",),
    }
    assert "fewer than published" in section.notes[0]
    (unchecked,) = by_heading(CHECKED, 2345)["Images"].notes
    assert unchecked.startswith("not checked, as it needs the pixels")
    assert "in the whole data set as published" not in rows(by_heading(CHECKED, None)["Images"])


def test_the_splits_say_labels_patients_and_leaks():
    section = by_heading(CHECKED, None)["Split and leaks"]
    assert rows(section)["train"] == ("1,000", "50.0%", "750", "250", "300")
    assert "1 patients, 0 breasts, 0 files" in section.notes[0]
    assert section.notes[1].startswith("warning: 1 patients")


def test_no_split_is_said():
    empty = {"split": "train", "images": 0, "malignant": 0, "patients": 0, "fraction": 0.0}
    unsplit = [empty, {"split": "", "images": 9, "malignant": 9, "patients": 2, "fraction": 1.0}]
    section = by_heading(CHECKED | {"leaks": LEAKS | {"splits": unsplit}}, None, split_made=False)["Split and leaks"]
    assert rows(section) == {"(none)": ("9", "100.0%", "0", "9", "2")}
    assert [note[:6] for note in section.notes] == ["error:"]


def test_rejected_lesions_and_copies_are_known_after_preparing_only():
    checked, prepared = by_heading(CHECKED, None), by_heading(PREPARED, None)
    assert "rejected: a lesion cannot be drawn" not in rows(checked["Lesions"])
    assert rows(prepared["Lesions"])["rejected: a lesion cannot be drawn"] == ("10",)
    assert rows(prepared["Images"])["of these with the pixels of another one"] == ("6",)
    assert "warning: 2 pictures stand in more than one split" in prepared["Images"].notes[0]
    assert rows(prepared["Notes on images"]) == {"FILE has another aspect": ("10",)}
    assert "Notes on images" not in checked


def test_what_is_empty_has_no_section_and_many_kinds_end_in_one_line():
    bare = CHECKED | {"left_out": {}, "sizes": {f"{100 + i} x {200 - i}": 20 - i for i in range(14)}, "greys": {}}
    found = by_heading(bare, None)
    assert "Images left out" not in found
    assert "Grey values" not in found
    assert found["Original sizes"].rows[1:] == [("100 to 113 x 187 to 200 (14 sizes)", "189")]
    formats = by_heading(CHECKED | {"formats": {f"format {i}": 20 - i for i in range(14)}}, None)["File formats"]
    assert len(formats.rows) == 12
    assert formats.rows[-1] == ("(4 others)", str(10 + 9 + 8 + 7))


def test_sections_are_text_that_keeps_to_the_width():
    text = sections_text([*by_heading(PREPARED, 3032).values()], 80)
    assert max(map(len, text.splitlines())) <= 80
    for line in (
        "Images           found: 2,345; in the whole data set as published: 3,032; left",
        "Split and leaks  split  images  fraction  benign  malignant  patients",
        "                 train   1,000     50.0%     750        250       300",
        "Lesions by type  mass: 1,200",
        "Original sizes   4084 x 3328: 2,000; 3328 x 2560: 345",
    ):
        assert line in text.splitlines()
    narrow = sections_text([*by_heading(PREPARED, 3032).values()], 40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert "1,000" in narrow


def test_images_with_problems_are_named_by_kind_and_fit_one_screen():
    ids = [f"patient-{number:03}-{side}" for number in range(100) for side in "LR"]
    table = pd.DataFrame({"image_id": ids, "path": [f"/data/{name}.png" for name in ids], "lesions": [()] * 200})
    left_out = pd.DataFrame({"image_id": ids[:90], "reason": [f"/data/{name}.png: no image" for name in ids[:90]]})
    notes = [f"the chest wall, {n} % of the side, is another than the table's" for n in range(50)]
    notes += [f"{word} lies elsewhere " * 20 for word in "abcdefghij"]
    notes = pd.DataFrame({"image_id": ids[100:160], "note": notes})
    lines = names_text(table, Findings(left_out, notes, None, []), 80).splitlines()
    assert len(lines) <= 16
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "Left out (all 90 in left_out.csv)",
        "  90: patient-000-L, patient-000-R, patient-001-L and 87 more: no image",
    ]
    assert lines[3].startswith("  50: patient-050-L, patient-050-R, patient-051-L and 47 more: the chest wall, 0")
    assert lines[-1] == "  and 7 other kinds"


@pytest.fixture
def page(tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"\x89PNG\r\n\x1a\n")
    sections = [*inventory_sections(PREPARED, 3032), Section("<b>", [("&", "n"), ("<script>alert(1)</script>", "1")])]
    path = tmp_path / "prepare.html"
    settings = {"dataset.name": "cbis", "dataset.leave_out": "[3,4a]"}
    assert write_inventory_page(path, "Data set <x>", "Prepared.", sections, sheet, settings) == path
    return path.read_text()


def test_the_page_says_what_the_text_says(page):
    for words in ("2,345", "no decoder for RLE", "4084 x 3328", "DICOM, RLE Lossless", "[3,4a]", "Research only"):
        assert words in page
    assert page.count('<p class="warning">') == 2
    assert "iVBORw0KGgo=" not in page.replace("data:image/png;base64,iVBORw0KGgo=", "")
    assert "data:image/png;base64,iVBORw0KGgo=" in page


def test_words_of_the_data_are_no_markup(page):
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<title>Data set &lt;x&gt;</title>" in page
