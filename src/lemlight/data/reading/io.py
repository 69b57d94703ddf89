"""Any image file -> pixels in [0, 1]; the content of the file says what it is, not its suffix."""

import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import UID, MediaStorageDirectoryStorage

from lemlight.data.reading.dicom import inflated_problem, quiet, read_dicom
from lemlight.data.reading.dicom_header import KIND_TAGS, not_a_mammogram
from lemlight.data.reading.plausible import odd_pixels
from lemlight.data.reading.raster import PNM, Image, is_raster, read_raster
from lemlight.errors import ImageError, LemlightError, as_image_error
from lemlight.files import open_file
from lemlight.limits import length_problem

HASHED = 2**26  # bytes of a file that its image_id is made of: no mammogram has more
HEADER = 132  # bytes: the preamble of a DICOM file and its "DICM"
LEFT_BEHIND = "__MACOSX"
NOT_KNOWN = "not an image of a known format (DICOM with its preamble, PNG, JPEG, TIFF, PGM or PPM)"


def read_image(path: Path) -> Image:
    """Read a mammogram from DICOM, PNG, JPEG, TIFF or PGM.

    Its notes say what is odd about it. Raises ImageError naming the file where it is none of these, damaged, or not
    one 2-D mammogram.
    """
    image = read_dicom(path) if is_dicom(path) else read_raster(path)
    return replace(image, notes=(*image.notes, *odd_pixels(image.pixels, image.bits)))


def is_dicom(path: Path) -> bool:
    """Tell DICOM from the raster formats; raise ImageError for anything else."""
    with as_image_error(path, "cannot be read ({})"), open_file(path) as file:
        start, problem = file.read(HEADER), length_problem(file)
    if problem:
        raise ImageError(f"{path}: {problem}")
    if start[128:] != b"DICM" and not is_raster(start):
        raise ImageError(f"{path}: {NOT_KNOWN}")
    return start[128:] == b"DICM"


# What a file is by its content; all but the first three are counted and left out.
DICOM = "DICOM image"
RASTER = "raster image"
DIRECTORY = "DICOMDIR"
NO_FORMAT = "neither DICOM (with its preamble) nor PNG, JPEG, TIFF, PGM or PPM"
NO_IMAGE = "DICOM without an image (a report, a segmentation, ...)"
PRESENTATION = "DICOM presentation states, which are not applied to their images"
UNREADABLE = "cannot be read (permissions, a broken link, no regular file)"
NOT_NAMED = "not named by the DICOMDIR in their folder"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundImage:
    """One image file. `image_id` is its place in the sorted list and six digits of a hash of its first 64 MB."""

    path: Path
    image_id: str
    is_dicom: bool


def find_images(path: Path) -> list[FoundImage]:
    """Find the images of a file, a folder (to any depth) or a DICOMDIR, sorted by path.

    The content says what a file is, not its suffix. Hidden files and folders are passed over; links are followed, and
    a folder is read once. In a folder with a DICOMDIR the images are those that it names, unless none of them is there.
    What is left out or missing is counted in the log. File names may hold a patient's name and image_ids do not: only
    the caller knows both. Raises LemlightError where there is no such path or no image.
    """
    if not os.path.exists(path):  # unlike Path.exists, it takes a folder that may not be entered for one not there
        raise LemlightError(f"there is no file or folder {path}: set input to an image, a DICOMDIR or a folder of them")
    if path.is_dir():
        unreadable: list[OSError] = []
        files = [Path(file) for file, _ in entries_below(str(path), unreadable.append)]
        kinds = {file: _kind(file) for file in files}
        if unreadable:
            log.warning("%d folders cannot be read: check their permissions", len(unreadable))
        for directory in [file for file, kind in kinds.items() if kind == DIRECTORY]:
            _keep_named(directory, kinds)
    else:
        kinds = {path: _kind(path)}
        if kinds[path] == DIRECTORY:
            kinds |= {file: _kind(file) for file in named_images(path)}
    skipped = Counter(kind for kind in kinds.values() if kind not in (DICOM, RASTER, DIRECTORY))
    counts = "; ".join(f"{count} {why}" for why, count in sorted(skipped.items())) or "it holds no file"
    images = sorted((file for file, kind in kinds.items() if kind in (DICOM, RASTER)), key=lambda file: file.parts)
    if not images:
        raise LemlightError(f"no image in {path}: {counts}")
    if skipped:
        log.info("left out: %s", counts)  # no path in any message: a folder may be named after a patient
    return [FoundImage(file, _image_id(n, file), kinds[file] == DICOM) for n, file in enumerate(images, start=1)]


def entries_below(root: str, unreadable: Callable[[OSError], object]) -> Iterator[tuple[str, bool]]:
    """Give the paths of all that lies below root and is no folder, and whether it is a file; hidden ones passed over.

    The entries say what they are, so that tens of thousands of files cost no call each. Links are followed, but for
    those to a folder above, and a folder is read once. `unreadable` is told of folders that cannot be read.
    """
    real = os.path.realpath(root)
    seen, folders = {real, *map(str, Path(real).parents)}, [root]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                shown = sorted((e for e in entries if e.name[0] != "." and e.name != LEFT_BEHIND), key=lambda e: e.name)
        except OSError as error:
            unreadable(error)
            continue
        for entry in shown:
            try:
                folder, file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                folder = file = False
            if not folder:
                yield entry.path, file
            elif (real := os.path.realpath(entry.path)) not in seen:
                seen.add(real)
                folders.append(entry.path)


def _kind(path: Path) -> str:
    """Return what a file is by its first bytes; a damaged DICOM file is an image, reading it tells the rest."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return UNREADABLE
        with open_file(path) as file, quiet():
            start = file.read(HEADER)
            file.seek(0)
            if start[128:] != b"DICM":
                words = start.startswith(PNM) and not start[2:3].isspace() and start[2:3] != b"#"  # a text: P2001, ...
                return RASTER if is_raster(start) and not words else NO_FORMAT
            if length_problem(file) or inflated_problem(file):
                return DICOM
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(KIND_TAGS))
        storage = UID(header.file_meta.MediaStorageSOPClassUID)
        if storage == MediaStorageDirectoryStorage:
            return DIRECTORY
        if storage.type == "SOP Class" and "Image" not in storage.name:
            return PRESENTATION if "Presentation State" in storage.name else NO_IMAGE
        other = not_a_mammogram(header)
    except OSError:
        return UNREADABLE
    except Exception:
        return DICOM
    return f"DICOM, {other.removesuffix('; leave it out')}" if other else DICOM


def _image_id(number: int, path: Path) -> str:
    with as_image_error(path, "cannot be read ({})"), open_file(path) as file:
        digest = hashlib.blake2b(file.read(HASHED), digest_size=3).hexdigest()
    return f"image_{number:04d}_{digest}"


INACTIVE = 0  # Record In-use Flag, PS3.3 F.3.2.2


def _keep_named(directory: Path, kinds: dict[Path, str]) -> None:
    """Leave out the images in the folder of a DICOMDIR that it does not name (a viewer's icons), in place."""
    try:
        here = {file.resolve() for file in named_images(directory)}
    except LemlightError:
        log.warning("a DICOMDIR cannot be read: every image in its folder is taken")
        return
    around = [file for file, kind in kinds.items() if kind in (DICOM, RASTER) and directory.parent in file.parents]
    others = [file for file in around if file.resolve() not in here]
    kinds |= dict.fromkeys(others, NOT_NAMED)
    if others:
        log.warning("a DICOMDIR does not name %d images in its folder; give them alone to take them", len(others))


def named_images(directory: Path) -> list[Path]:
    """Return the image files that a DICOMDIR names, in its order; those that are not there are counted in the log.

    A name is found in lower case and with a suffix, too: so do Linux and archives deliver CDs. A name that leads out
    of the folder of the DICOMDIR counts as not there. Raises ImageError where none is there, or it cannot be read.
    """
    names: list[tuple[str, ...]] = []
    with quiet(), as_image_error(directory, "a damaged DICOMDIR ({}); remove it, or give the folder of the images"):
        for record in pydicom.dcmread(directory).get("DirectoryRecordSequence") or []:
            name = record.get("ReferencedFileID")
            if name and record.get("DirectoryRecordType") == "IMAGE" and record.get("RecordInUseFlag") != INACTIVE:
                names.append(tuple(map(str, name)) if isinstance(name, MultiValue) else (str(name),))
    found = {parts: _find(directory.parent, parts) for parts in names}
    there = [path for path in found.values() if path is not None]
    missing = len(found) - len(there)
    if not there:
        raise ImageError(f"{directory}: of the {missing} images that this DICOMDIR names none is there")
    if missing:
        log.warning("a DICOMDIR names %d images that are not there", missing)
    return there


def _find(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """Walk down from folder, part by part, whatever the case; the last part may have got a suffix."""
    if any(part in ("", ".", "..") or "/" in part for part in parts):
        return None
    for depth, part in enumerate(parts, start=1):
        if (folder / part).exists():
            folder = folder / part
            continue
        wanted, entries = part.lower(), sorted(folder.iterdir()) if folder.is_dir() else []
        for entry in entries:
            here = entry.name.lower().removesuffix(";1")  # the version number of ISO 9660
            if here == wanted or (depth == len(parts) and here.startswith(f"{wanted}.")):
                folder = entry
                break
        else:
            return None
    return folder if folder.is_file() else None
