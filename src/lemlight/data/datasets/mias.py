"""mini-MIAS: 322 scanned film mammograms (MLO) of 161 patients at 200 micrometres per px, 1024 x 1024 px, 8 bits.

Layout, anywhere below root: `mdb001.pgm` to `mdb322.pgm` (or PNG, JPEG, TIFF of the same names) and the table of
abnormalities, `Info.txt` or the README, `00README` of the download: `mdb001 G CIRC B 535 425 197` is image, tissue,
class, severity, centre x and y from the lower left corner, and radius, all in px.
Label: an image is malignant if any of its abnormalities is (severity M). `normal_images=false` drops those of class
NORM, so that malignant stands against benign.
Patient: two films in a row, mdb001 and mdb002. Odd numbers are left and even ones right breasts, as the names of the
original MIAS say (mdb001lm, mdb002rl); the note 1 of the README has it the other way round.
Lesions: circles, y turned to count from the top. Where any abnormality has no circle (calcifications all over the
image, the README's note on that is the `*NOTE 3*` of a line), or one with its centre outside the image, and where the
image is not square (within 2 %), the lesions of the image are unknown; in a square one of another size they are scaled,
which is noted. A normal image is known to hold none.
Split: none is official.
Source: Suckling et al., The Mammographic Image Analysis Society digital mammogram database, Excerpta Medica
International Congress Series 1069, 1994, 375-378; http://peipa.essex.ac.uk/info/mias.html. For research only, without
passing it on, by its licence agreement.
"""

import os
import re
from pathlib import Path

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import Download, ending, read_text
from lemlight.data.preparing.lesions import Lesion, same_aspect
from lemlight.errors import ImageError

SIDE = 1024  # px of every image
TYPES = {
    "CALC": "calcification",
    "CIRC": "mass",
    "SPIC": "mass",
    "MISC": "mass",  # other, ill-defined masses
    "ARCH": "distortion",
    "ASYM": "asymmetry",
}
IMAGES = (".pgm", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHERS = (".pgm", ".dcm", ".dicom")  # of other data sets; pictures may lie about
TABLES = ("info", "readme", "00readme")
NUMBER = re.compile(r"mdb\d{3}")
ORIGINAL = re.compile(r"mdb\d{3}[lr][smlx]")
LINE = (
    r"^(?P<image>mdb\d{3})(?: (?P<tissue>[FGD]))? (?:NORM|(?P<kind>CALC|CIRC|SPIC|MISC|ARCH|ASYM) (?P<severity>[BM])"
    r"(?: (?P<x>\d+) (?P<y>\d+) (?P<radius>\d+)| \*+ ?(?:see )?NOTE.*)?)$"
)


@checked
def mias(root: str | Path, normal_images: bool = True, allow_missing: bool = False) -> pd.DataFrame:
    """Build the image table of mini-MIAS below `root`."""
    download = Download("mini-MIAS", root)
    files = _images(download)
    shapes = {path: header.shape for path, header in download.headers(list(files.values())).items()}
    lines = _read_lines(download)
    of_image = lines.groupby("image")
    kinds = of_image["normal"].nunique()
    download.wrong("images that the table calls normal and abnormal", kinds.index[kinds > 1])
    rows = of_image.agg(normal=("normal", "first"), label=("malignant", "any"), density=("tissue", "first"))
    rows = rows.reset_index(names="image_id")
    rows = download.with_files(rows, files, "image_id", ~(rows["normal"].astype(bool) & (not normal_images)))
    images = rows[rows["path"].isin(list(shapes))]
    download.check(allow_missing, images)
    number = images["image_id"].str[3:].astype(int)
    images = images.assign(
        label=images["label"].astype(int),
        patient_id=((number + 1) // 2).map("pair{:03d}".format),
        laterality=(number % 2).map({1: "L", 0: "R"}),
        view="MLO",
    )
    return download.image_table(images, lambda row: _lesions(of_image.get_group(row.image_id), shapes[row.path]))


def _images(download: Download) -> dict[str, str]:
    """Find the images by name; note doubles and images of other data sets."""
    names = {path: os.path.splitext(os.path.basename(path))[0].lower() for path in download.files}
    original = [path for path, name in names.items() if ORIGINAL.fullmatch(name)]
    download.wrong("images of the original MIAS, which has other coordinates", map(os.path.basename, original))
    ours = {path: name for path, name in names.items() if NUMBER.fullmatch(name) and ending(path) in IMAGES}
    others = {path: "" for path in names if ending(path) in OTHERS and path not in original}
    return download.one_file_each(others | ours, (others | ours).__getitem__)


def _read_lines(download: Download) -> pd.DataFrame:
    """Read the table, whatever file holds it, as text and whether it is normal or malignant; twice counts once."""
    tables = {}
    for path in map(Path, download.files):
        if path.name.lower().removesuffix(".txt") in TABLES:
            plain = [re.sub(r"[\s,;]+", " ", line).strip() for line in read_text(path).splitlines()]
            lines = {number: line for number, line in enumerate(plain, 1) if re.match(r"mdb\d", line, re.I)}
            if lines:
                tables[str(path)] = lines
    if not tables:
        download.wrong("no table of abnormalities: lines such as `mdb001 G CIRC B 535 425 197`", ["Info.txt or README"])
    if len({frozenset(lines.values()) for lines in tables.values()}) > 1:
        download.wrong("tables that contradict each other", map(os.path.basename, tables))
    table, lines = next(iter(tables.items()), ("", {}))
    rows: pd.DataFrame = pd.Series(lines, dtype=str).str.extract(LINE, flags=re.IGNORECASE).fillna("")
    bad = [f"line {number} ({lines[number]!r})" for number in rows.index[rows["image"] == ""]]
    download.wrong(f"lines of {os.path.basename(table)} that are not mini-MIAS's", bad)
    rows = rows[rows["image"] != ""].apply(lambda column: column.str.upper())
    rows = rows.assign(image=rows["image"].str.lower(), normal=rows["kind"] == "", malignant=rows["severity"] == "M")
    return rows.drop_duplicates()


def _lesions(lines: pd.DataFrame, shape: tuple[int, int]) -> tuple[Lesion, ...]:
    """Give the lesions of an image; ImageError where they are unknown."""
    lesions = []
    for kind, *circle in zip(*(lines[column] for column in ("kind", "x", "y", "radius")), strict=True):
        if not kind:
            return ()
        if not all(circle):
            raise ImageError("no circle")
        if not same_aspect(shape, (SIDE, SIDE)):
            raise ImageError(f"{shape[0]} x {shape[1]} px")
        x, from_below, radius = map(int, circle)
        y = SIDE - 1 - from_below
        if not (0 <= x < SIDE and 0 <= y < SIDE and 0 < radius < SIDE):
            raise ImageError("a circle outside the image")
        points = ((float(x), float(y)),)
        size = None if shape == (SIDE, SIDE) else (SIDE, SIDE)
        lesions.append(Lesion("circle", type=TYPES[kind], points=points, radius=float(radius), size=size))
    return tuple(lesions)
