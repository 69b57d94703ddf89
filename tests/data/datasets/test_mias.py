import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from lemlight.data.datasets.mias import mias
from tests.layouts.drawing import failure_of, spoil, written_by
from tests.layouts.mias import write_mias

failure = partial(failure_of, mias)
written = written_by(write_mias, patients=6)


def edit(root, old, new):
    """Change Info.txt, and remove the README that says the same."""
    (root / "all-mias" / "README").unlink(missing_ok=True)
    spoil(root / "Info.txt", old, new)


def lines_of(root, image):
    return [line for line in (root / "Info.txt").read_text().splitlines() if line.startswith(image)]


def test_the_worked_example_of_the_readme(download):
    edit(download, lines_of(download, "mdb003")[0], "mdb003 G CIRC B 535 425 197")
    lesion = mias(download).set_index("image_id").loc["mdb003", "lesions"][0]
    assert (lesion.shape, lesion.type, lesion.points, lesion.radius) == ("circle", "mass", ((535.0, 598.0),), 197.0)


def test_normal_images_may_be_left_out(written, truth):
    assert set(mias(written[0], normal_images=False)["image_id"]) == set(truth.index[~truth["normal"]])


def test_any_malignant_line_makes_the_image_malignant_and_a_line_twice_is_one_lesion(download):
    first, second = lines_of(download, "mdb001")
    edit(download, second, f"{second.replace(' B ', ' M ')}\n{first}")
    row = mias(download).set_index("image_id").loc["mdb001"]
    assert row["label"] == 1
    assert len(row["lesions"]) == 2


@pytest.mark.parametrize(
    "line",
    ["mdb003 D CALC M *NOTE 3*", "mdb003 D CALC M", "mdb003 D CALC M *** see note 2", "mdb003 CALC M *NOTE 3*"],
)
def test_a_line_without_circle_makes_the_lesions_unknown_even_beside_one_with(download, line):
    edit(download, lines_of(download, "mdb003")[0], f"mdb003 G CIRC B 535 425 197\n{line}")
    row = mias(download).set_index("image_id").loc["mdb003"]
    assert (row["label"], row["lesions"], row["lesions_known"]) == (1, (), False)


@pytest.mark.parametrize("circle", ["1024 5 9", "5 1024 9", "5 5 0"])
def test_a_circle_outside_the_image_makes_the_lesions_unknown(download, circle, caplog):
    edit(download, lines_of(download, "mdb003")[0], f"mdb003 G CIRC M {circle}")
    assert not mias(download).set_index("image_id").loc["mdb003", "lesions_known"]
    assert "mdb003" in caplog.text


@pytest.mark.parametrize("circle", ["0 0 9", "1023 1023 9"])
def test_a_circle_in_the_corner_is_inside(download, circle):
    edit(download, lines_of(download, "mdb003")[0], f"mdb003 G CIRC M {circle}")
    lesion = mias(download).set_index("image_id").loc["mdb003", "lesions"][0]
    assert lesion.draw((1024, 1024))[0].any()


def test_the_circles_of_a_square_copy_are_scaled_and_noted(download):
    edit(download, lines_of(download, "mdb003")[0], "mdb003 G CIRC M 400 223 80")
    path = download / "all-mias" / "mdb003.pgm"
    Image.open(path).resize((256, 256)).save(path)
    (lesion,) = mias(download).set_index("image_id").loc["mdb003", "lesions"]
    drawn, note = lesion.draw((256, 256))
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (180, 219, 80, 119)
    assert note == "lesions rescaled from an image of (1024, 1024) to (256, 256)"


def test_an_image_of_another_aspect_has_no_known_lesions_but_a_normal_one_has_none(download):
    for image in ("mdb003", "mdb004"):
        path = download / "all-mias" / f"{image}.pgm"
        Image.open(path).resize((256, 300)).save(path)
    table = mias(download).set_index("image_id")
    assert list(table.loc[["mdb003", "mdb004"], "lesions_known"]) == [False, True]


@pytest.mark.parametrize("suffix", ["png", "jpg", "PNG"])
def test_copies_in_other_formats(download, truth, suffix):
    for path in list((download / "all-mias").glob("*.pgm")):
        Image.open(path).save(path.with_suffix(f".{suffix}"))
        path.unlink()
    table = mias(download)
    assert list(table["image_id"]) == list(truth.index)
    assert all(path.endswith(suffix) for path in table["path"])


@pytest.mark.parametrize("name", ["00README", "README.txt", "info.TXT"])
def test_the_table_is_found_in_any_of_its_files(download, written, name):
    (download / "all-mias" / "README").rename(download / "aside")
    (download / "Info.txt").unlink()
    (download / "aside").rename(download / name)
    assert list(mias(download)["label"]) == list(mias(written[0])["label"])


def test_everything_wrong_is_listed_at_once(download):
    images = download / "all-mias"
    edit(download, "mdb008 D NORM", "mdb008 D NORMAL")
    edit(download, "mdb010 G NORM", "mdb010 G NORM\nmdb010 G CIRC B 5 5 5")
    edit(download, lines_of(download, "mdb011")[0], "mdb011 F CIRC X 5 5 5")
    (images / "mdb002.pgm").unlink()
    (images / "mdb003.pgm").write_bytes((images / "mdb003.pgm").read_bytes()[:5000])
    (images / "mdb004.pgm").write_bytes(b"<html>")
    (images / "mdb006.pgm").write_bytes(b"P5\n0.5 x\n255\n")
    shutil.copyfile(images / "mdb005.pgm", images / "mdb099.pgm")
    shutil.copyfile(images / "mdb005.pgm", download / "mdb005.pgm")
    shutil.copyfile(images / "mdb005.pgm", images / "mdb005lm.pgm")
    (images / "22678622_MG_L_CC_ANON.dcm").write_bytes(b"")
    (images / "mdb005.dcm").write_bytes(b"")
    message = failure(download)
    for part in (
        "('mdb008 D NORMAL')",
        "('mdb011 F CIRC X 5 5 5')",
        "normal and abnormal (1): mdb010",
        "without a file (1): mdb002",
        "mdb003.pgm: cut short",
        "mdb004.pgm: no image",
        "mdb006.pgm: no image",
        "without a row in the table (3): mdb008, mdb011, mdb099",
        "there twice (1): all-mias/mdb005.pgm and mdb005.pgm",
        "original MIAS, which has other coordinates (1): mdb005lm.pgm",
        "not mini-MIAS's (2): all-mias/22678622_MG_L_CC_ANON.dcm, all-mias/mdb005.dcm",
        "allow_missing",
    ):
        assert part in message, part


def test_normal_images_that_are_left_out_may_be_missing(download, truth):
    for image in truth.index[truth["normal"]]:
        (download / "all-mias" / f"{image}.pgm").unlink()
    assert len(mias(download, normal_images=False)) == (~truth["normal"]).sum()


def test_tables_that_contradict_each_other(download):
    path = download / "Info.txt"
    path.write_text(path.read_text().replace(" B ", " M ", 1))
    assert "contradict each other (2): Info.txt, README" in failure(download)
    (download / "all-mias" / "README").rename(download / "all-mias" / "Info.txt")
    assert "contradict each other (2): Info.txt, Info.txt" in failure(download)
