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
image is of another size, the lesions of the image are unknown. A normal image is known to hold none.
Split: none is official.
Source: Suckling et al., The Mammographic Image Analysis Society digital mammogram database, Excerpta Medica
International Congress Series 1069, 1994, 375-378; http://peipa.essex.ac.uk/info/mias.html. For research only, without
passing it on, by its licence agreement.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import PIL.Image

from lemlight.arguments import checked
from lemlight.data.datasets.common import Problems, files_of, read_text
from lemlight.data.lesions import Lesion
from lemlight.data.table import check_table, first_ten
from lemlight.errors import ImageError, LemlightError

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
NUMBER = re.compile(r"mdb(\d{3})")
ORIGINAL = re.compile(r"mdb\d{3}[lr][smlx]")
LINE = re.compile(
    r"(?P<image>mdb\d{3})(?: [FGD])? (?:NORM|(?P<kind>CALC|CIRC|SPIC|MISC|ARCH|ASYM) (?P<severity>[BM])"
    r"(?: (?P<x>\d+) (?P<y>\d+) (?P<radius>\d+)| \*+ ?(?:see )?NOTE.*)?)",
    re.I,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Abnormality:
    """A line of the table: image, class ("" for a normal one), malignant or not, circle (x, y from below, radius)."""

    image: str
    kind: str
    malignant: bool
    circle: tuple[int, int, int] | None


@checked
def mias(root: str | Path, normal_images: bool = True, allow_missing: bool = False) -> pd.DataFrame:
    """Build the image table of mini-MIAS below `root`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing or broken only without `allow_missing`.
    """
    root = Path(root)
    problems = Problems("mini-MIAS", root)
    paths = files_of(root, "mini-MIAS")
    files = _images(paths, problems)
    sizes = _sizes(files, problems)
    lines = _read_lines(paths, problems)
    if lines:
        wanted = {image for image, found in lines.items() if normal_images or found[0].kind}
        problems.incomplete("images of the table without a file", sorted(wanted - set(files)))
        problems.incomplete("images without a line in the table", sorted(set(files) - set(lines)))
        both = [image for image, found in lines.items() if len({line.kind == "" for line in found}) > 1]
        problems.wrong("images that the table calls normal and abnormal", sorted(both))
    problems.raise_any(allow_missing)
    kept = [image for image in sorted(sizes) if image in lines and (normal_images or lines[image][0].kind)]
    if not kept:
        raise LemlightError(f"no image of mini-MIAS is left of {root}: check dataset.root and dataset.normal_images")
    return _build(kept, files, sizes, lines)


def _images(paths: Iterable[Path], problems: Problems) -> dict[str, Path]:
    """Find the images by name; note doubles and images of other data sets."""
    found: dict[str, list[Path]] = defaultdict(list)
    original, strange = [], []
    for path in paths:
        stem, suffix = path.stem.lower(), path.suffix.lower()
        if NUMBER.fullmatch(stem) and suffix in IMAGES:
            found[stem].append(path)
        elif ORIGINAL.fullmatch(stem):
            original.append(path.name)
        elif suffix in OTHERS:
            strange.append(path.name)
    doubles = [" and ".join(path.name for path in same) for same in found.values() if len(same) > 1]
    problems.wrong("images that are there twice", doubles)
    problems.wrong("images of the original MIAS, which has other coordinates", original)
    problems.wrong("images whose names are not mini-MIAS's", strange)
    return {image: same[0] for image, same in found.items()}


def _sizes(files: dict[str, Path], problems: Problems) -> dict[str, tuple[int, int]]:
    """Read the shape (H, W) in px of every image from its header."""
    sizes, broken = {}, []
    for image, path in sorted(files.items()):
        try:
            with PIL.Image.open(path) as picture:
                width, height = picture.size
                kind = picture.format
            if kind == "PPM" and path.stat().st_size < height * width:  # the others tell when they are decoded
                raise ImageError("cut short")
            sizes[image] = height, width
        except ImageError as error:
            broken.append(f"{path.name}: {error}")
        except MemoryError:
            raise
        except Exception:  # Pillow raises whatever a broken header makes Python raise
            broken.append(f"{path.name}: no image")
    problems.incomplete("broken images", broken)
    return sizes


def _read_lines(paths: Iterable[Path], problems: Problems) -> dict[str, list[Abnormality]]:
    """Read the table, whatever file holds it; a line that stands there twice counts once."""
    tables = {}
    for path in paths:
        if path.name.lower().removesuffix(".txt") in TABLES:
            text = read_text(path)
            plain = [re.sub(r"[\s,;]+", " ", line).strip() for line in text.splitlines()]
            lines = {number: line for number, line in enumerate(plain, 1) if re.match(r"mdb\d", line, re.I)}
            if lines:
                tables[path] = lines
    if not tables:
        problems.wrong("no table of abnormalities: lines such as `mdb001 G CIRC B 535 425 197`", ["Info.txt or README"])
        return {}
    if len({frozenset(lines.values()) for lines in tables.values()}) > 1:
        problems.wrong("tables that contradict each other", [path.name for path in tables])
    path, lines = next(iter(tables.items()))
    matches = {number: LINE.fullmatch(line) for number, line in lines.items()}
    bad = [f"line {number} ({lines[number]!r})" for number, match in matches.items() if match is None]
    problems.wrong(f"lines of {path.name} that are not mini-MIAS's", bad)
    found: dict[str, list[Abnormality]] = defaultdict(list)
    for match in matches.values():
        line = _abnormality(match) if match else None
        if line and line not in found[line.image]:
            found[line.image].append(line)
    return dict(found)


def _abnormality(match: re.Match[str]) -> Abnormality:
    circle = (int(match["x"]), int(match["y"]), int(match["radius"])) if match["x"] else None
    kind, severity = (match["kind"] or "").upper(), (match["severity"] or "").upper()
    return Abnormality(match["image"].lower(), kind, severity == "M", circle)


def _build(
    kept: list[str],
    files: dict[str, Path],
    sizes: dict[str, tuple[int, int]],
    lines: dict[str, list[Abnormality]],
) -> pd.DataFrame:
    lesions = [_lesions(lines[image], sizes[image]) for image in kept]
    unknown = [image for image, found in zip(kept, lesions, strict=True) if found is None]
    if unknown:
        logger.warning("mini-MIAS: the lesions of %d images are unknown: %s", len(unknown), first_ten(unknown))
    numbers = [int(image[3:]) for image in kept]
    table = pd.DataFrame(
        {
            "image_id": kept,
            "path": [str(files[image]) for image in kept],
            "label": [int(any(line.malignant for line in lines[image])) for image in kept],
            "patient_id": [f"pair{(number + 1) // 2:03d}" for number in numbers],
            "split": "",
            "laterality": ["L" if number % 2 else "R" for number in numbers],
            "view": "MLO",
            "lesions": pd.Series([found or () for found in lesions], dtype=object),
            "lesions_known": [found is not None for found in lesions],
        }
    )
    return check_table(table, "mini-MIAS")


def _lesions(lines: list[Abnormality], size: tuple[int, int]) -> tuple[Lesion, ...] | None:
    """Give the lesions of an image, None where they are unknown."""
    lesions = []
    for line in lines:
        if not line.kind:
            return ()
        if line.circle is None or size != (SIDE, SIDE):
            return None
        x, from_below, radius = line.circle
        y = SIDE - 1 - from_below
        if not (0 <= x < SIDE and 0 <= y < SIDE and 0 < radius < SIDE):
            return None
        lesions.append(Lesion("circle", type=TYPES[line.kind], points=((float(x), float(y)),), radius=float(radius)))
    return tuple(lesions)
