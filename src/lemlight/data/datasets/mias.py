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
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

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
LINE = re.compile(
    r"(?P<image>mdb\d{3})(?: (?P<tissue>[FGD]))? (?:NORM|(?P<kind>CALC|CIRC|SPIC|MISC|ARCH|ASYM) (?P<severity>[BM])"
    r"(?: (?P<x>\d+) (?P<y>\d+) (?P<radius>\d+)| \*+ ?(?:see )?NOTE.*)?)",
    re.I,
)


class Abnormality(NamedTuple):
    """A line of the table: image, class ("" for a normal one), malignant or not, circle (x, y from below, radius).

    tissue: fatty (F), fatty-glandular (G) or dense (D).
    """

    image: str
    kind: str
    malignant: bool
    circle: tuple[int, int, int] | None
    tissue: str = ""


@checked
def mias(root: str | Path, normal_images: bool = True, allow_missing: bool = False) -> pd.DataFrame:
    """Build the image table of mini-MIAS below `root`."""
    download = Download("mini-MIAS", root)
    files = _images(download)
    shapes = {path: header.shape for path, header in download.headers(list(files.values())).items()}
    lines = _read_lines(download)
    both = [image for image, found in lines.items() if len({line.kind == "" for line in found}) > 1]
    download.wrong("images that the table calls normal and abnormal", sorted(both))
    rows = pd.DataFrame({"image_id": sorted(lines)}, dtype=str)
    wanted = pd.Series([normal_images or lines[image][0].kind != "" for image in rows["image_id"]], dtype=bool)
    rows = download.with_files(rows, files, "image_id", wanted)
    images = rows[rows["path"].isin(list(shapes))]
    download.check(allow_missing, images)
    number = images["image_id"].str[3:].astype(int)
    images = images.assign(
        label=[int(any(line.malignant for line in lines[image])) for image in images["image_id"]],
        patient_id=((number + 1) // 2).map("pair{:03d}".format),
        laterality=(number % 2).map({1: "L", 0: "R"}),
        view="MLO",
        density=[lines[image][0].tissue for image in images["image_id"]],
    )
    return download.image_table(images, lambda row: _lesions(lines[row.image_id], shapes[row.path]))


def _images(download: Download) -> dict[str, str]:
    """Find the images by name; note doubles and images of other data sets."""
    names = {path: os.path.splitext(os.path.basename(path))[0].lower() for path in download.files}
    original = [path for path, name in names.items() if ORIGINAL.fullmatch(name)]
    download.wrong("images of the original MIAS, which has other coordinates", map(os.path.basename, original))
    ours = {path: name for path, name in names.items() if NUMBER.fullmatch(name) and ending(path) in IMAGES}
    others = {path: "" for path in names if ending(path) in OTHERS and path not in original}
    return download.one_file_each(others | ours, (others | ours).__getitem__)


def _read_lines(download: Download) -> dict[str, list[Abnormality]]:
    """Read the table, whatever file holds it; a line that stands there twice counts once."""
    tables = {}
    for path in map(Path, download.files):
        if path.name.lower().removesuffix(".txt") in TABLES:
            plain = [re.sub(r"[\s,;]+", " ", line).strip() for line in read_text(path).splitlines()]
            lines = {number: line for number, line in enumerate(plain, 1) if re.match(r"mdb\d", line, re.I)}
            if lines:
                tables[str(path)] = lines
    if not tables:
        download.wrong("no table of abnormalities: lines such as `mdb001 G CIRC B 535 425 197`", ["Info.txt or README"])
        return {}
    if len({frozenset(lines.values()) for lines in tables.values()}) > 1:
        download.wrong("tables that contradict each other", [os.path.basename(path) for path in tables])
    table, lines = next(iter(tables.items()))
    matches = {number: LINE.fullmatch(line) for number, line in lines.items()}
    bad = [f"line {number} ({lines[number]!r})" for number, match in matches.items() if match is None]
    download.wrong(f"lines of {os.path.basename(table)} that are not mini-MIAS's", bad)
    found: dict[str, list[Abnormality]] = defaultdict(list)
    for match in matches.values():
        line = _abnormality(match) if match else None
        if line and line not in found[line.image]:
            found[line.image].append(line)
    return dict(found)


def _abnormality(match: re.Match[str]) -> Abnormality:
    circle = (int(match["x"]), int(match["y"]), int(match["radius"])) if match["x"] else None
    kind, severity = (match["kind"] or "").upper(), (match["severity"] or "").upper()
    return Abnormality(match["image"].lower(), kind, severity == "M", circle, (match["tissue"] or "").upper())


def _lesions(lines: list[Abnormality], shape: tuple[int, int]) -> tuple[Lesion, ...]:
    """Give the lesions of an image; ImageError where they are unknown."""
    lesions = []
    for line in lines:
        if not line.kind:
            return ()
        if line.circle is None:
            raise ImageError("no circle")
        if not same_aspect(shape, (SIDE, SIDE)):
            raise ImageError(f"{shape[0]} x {shape[1]} px")
        x, from_below, radius = line.circle
        y = SIDE - 1 - from_below
        if not (0 <= x < SIDE and 0 <= y < SIDE and 0 < radius < SIDE):
            raise ImageError("a circle outside the image")
        points = ((float(x), float(y)),)
        size = None if shape == (SIDE, SIDE) else (SIDE, SIDE)
        lesions.append(Lesion("circle", type=TYPES[line.kind], points=points, radius=float(radius), size=size))
    return tuple(lesions)
