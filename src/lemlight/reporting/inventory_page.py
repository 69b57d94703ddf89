"""What was found in a data set: by the headers of its files or by preparing them, on the terminal and as a page."""

import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd

from lemlight.data.preparing.inventory import other_sides, plain_texts, same_pixels
from lemlight.data.preparing.lesions import Lesion, size_notes
from lemlight.data.preparing.store import LEAST_SIDE, LEFT_OUT, PreparedStore, PrepareSettings, fill_store, prepare
from lemlight.data.reading.headers import Header, read_headers
from lemlight.data.reading.plausible import mixed
from lemlight.data.splits import leak_report
from lemlight.data.table import first_ten, write_table
from lemlight.files import write_csv, write_json
from lemlight.plots.sheets import Thumbnail, draw_evenly
from lemlight.reporting.page import base64_of, write_page
from lemlight.text import plain_table

HEIGHT = 288  # px of a thumbnail at most
MOST_ROWS = 10  # of a list; the others are one line
MOST_KINDS = 4  # of what is said of single images on the terminal, two lines each
MOST_SIZES = 5  # above, they are summed up
TOGETHER = "\N{NO-BREAK SPACE}"
INDENT = 17  # columns of a heading on the terminal
NOTES = "notes.csv"
BY_NAME = ("Images left out", "Notes on images")  # on the terminal `names_text` says it
UNCHECKED = (
    "not checked, as it needs the pixels: whether they can be decoded, overlays, padding, polarity and depth, the "
    "breast and its side, lesions beside it, what masks hold, pictures that stand twice"
)
SAME = "the same pixels as"


@dataclass(frozen=True)
class Findings:
    """What was found.

    left_out: image_id and reason; notes: image_id and what is odd about images that are used all the same; store: None
    where nothing was prepared; thumbnails: of some of the images that are used.
    """

    left_out: pd.DataFrame
    notes: pd.DataFrame
    store: PreparedStore | None
    thumbnails: Sequence[Thumbnail]


def check_images(
    table: pd.DataFrame, headers: Sequence[Header], settings: PrepareSettings, workers: int, thumbnails: int
) -> Findings:
    """Look at the headers only, and decode no images but those that become thumbnails; notes as far as that tells."""
    rows = zip(table["image_id"], table["path"], headers, strict=True)
    left_out = _frame({name: f"{path}: {header.problem}" for name, path, header in rows if header.problem}, "reason")
    used = table[~table["image_id"].isin(left_out["image_id"])]
    chosen = choose_images(used, thumbnails)
    shown: list[Thumbnail] = []
    notes = _header_notes(used, dict(zip(table["path"], headers, strict=True)))
    if len(chosen):
        height = min(HEIGHT, settings.height)
        width = max(LEAST_SIDE, round(settings.width * height / settings.height))
        with TemporaryDirectory() as folder:
            store = fill_store(chosen, replace(settings, height=height, width=width), Path(folder), workers)
            shown = draw_thumbnails(chosen[~chosen["image_id"].isin(store.left_out["image_id"])], store)
        left_out = pd.concat([left_out, store.left_out]).sort_values("image_id", ignore_index=True)
        notes = pd.concat([notes[~notes["image_id"].isin(chosen["image_id"])], store.notes], ignore_index=True)
    return Findings(left_out, notes, None, shown)


def _header_notes(used: pd.DataFrame, headers: Mapping[str, Header]) -> pd.DataFrame:
    """What `prepare` will note of images, as far as their headers, their lesions and the size of their masks tell."""
    lesions = [cast(tuple[Lesion, ...], row.lesions) if row.lesions_known else () for row in used.itertuples()]
    masks = sorted({lesion.path for own in lesions for lesion in own if lesion.path})
    sizes = {header.path: header.shape for header in read_headers(masks, notes=True) if any(header.shape)}
    rows: list[tuple[str, str]] = []
    for row, own in zip(used.itertuples(), lesions, strict=True):
        header = headers[str(row.path)]
        drawn = size_notes(own, header.shape, sizes) if any(header.shape) else []
        rows += [(str(row.image_id), note) for note in (*header.notes, *drawn)]
    return pd.DataFrame(rows, columns=["image_id", "note"])


def prepare_images(
    table: pd.DataFrame, settings: PrepareSettings, root: Path, workers: int, thumbnails: int
) -> Findings:
    """Prepare what the store below `root` lacks; raises LemlightError as `prepare` does."""
    store = prepare(table, settings, root, workers)
    used = table[~table["image_id"].isin(store.left_out["image_id"])]
    twins = {
        image_id: f"{SAME} {first_ten(other for other in group if other != image_id)}"
        for group in same_pixels(used, store)
        for image_id in group
    }
    notes = store.notes[store.notes["image_id"].isin(used["image_id"])]
    sides = other_sides(used, store)
    notes = pd.concat([notes, _frame(sides, "note"), _frame(twins, "note")], ignore_index=True)
    return Findings(store.left_out, notes, store, draw_thumbnails(choose_images(used, thumbnails), store))


def _frame(texts: Mapping[str, str], column: str) -> pd.DataFrame:
    return pd.DataFrame(sorted(texts.items()), columns=["image_id", column])


def choose_images(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """Draw at most count rows at random, as many of one label as of the other as far as they go, in their order."""
    classes = [(table["label"] == label).to_numpy() for label in (1, 0)]
    return table.iloc[sorted(row for rows in draw_evenly(classes, count, seed=0) for row in rows)]


def draw_thumbnails(rows: pd.DataFrame, store: PreparedStore) -> list[Thumbnail]:
    """Shrink images of the store; a lesion is seen however small it becomes."""
    shown = []
    for row in rows.itertuples():
        i = store.index_of(str(row.image_id))
        pixels, labels = store.image(i), store.mask(i)
        scale = min(1.0, HEIGHT / pixels.shape[0])
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        small = cv2.resize(pixels.astype(np.float32) / np.float32(65535), size, interpolation=cv2.INTER_AREA)
        lesions = None
        if labels is not None:
            lesions = np.asarray(cv2.resize((labels > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0
        types = tuple(store.lesion_types(i))
        shown.append(Thumbnail(np.asarray(small), lesions, int(str(row.label)), str(row.split), types))
    return shown


def write_lists(folder: Path, table: pd.DataFrame, findings: Findings, found: Mapping[str, Any]) -> None:
    """Write the files that programs read into the run folder; all but inventory.json hold names."""
    write_table(table, folder / "images.csv")
    for file, frame in ((LEFT_OUT, findings.left_out), (NOTES, findings.notes)):
        write_csv(_with_paths(frame, table), folder / file)
    used = table[~table["image_id"].isin(findings.left_out["image_id"])]
    write_json(leak_report(used, found["leaks"]["scheme"]).to_dict(), folder / "leaks.json")
    write_json(found, folder / "inventory.json")


def names_text(table: pd.DataFrame, findings: Findings, width: int) -> str:
    """Say which images are left out or odd, by kind, in lines of at most `width`; the whole lists are files."""
    lines = []
    for heading, frame, file in (("Left out", findings.left_out, LEFT_OUT), ("Used, but", findings.notes, NOTES)):
        kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)  # what differs in its numbers only is one kind
        for name, said in zip(frame["image_id"], plain_texts(frame, table), strict=True):
            kinds[re.sub(r"\d+", "", SAME if said.startswith(SAME) else said)].append((name, said))
        most = sorted(kinds.values(), key=len, reverse=True)
        lines += [f"{heading} (all {len(frame)} in {file})"] if most else []
        for found in most[:MOST_KINDS]:
            names = first_ten((name for name, _ in found), 3)
            lines += _wrapped(f"{len(found)}: {names}: {found[0][1]}", width, most=2)
        others = len(most) - MOST_KINDS
        lines += [f"  and {others} other kind{'s' * (others > 1)}"] if others > 0 else []
    return "\n".join(lines)


def _wrapped(text: str, width: int, first: str = "  ", further: str = "    ", most: int | None = None) -> list[str]:
    """Break a text into lines of at most `width`, names left whole where that is possible."""
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=further, break_on_hyphens=False, max_lines=most
    )
    return [line.replace(TOGETHER, " ") for line in lines]


def _with_paths(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put the path of each image between its image_id and what is said of it, where the path need not stand again."""
    _, text = frame.columns
    paths = frame["image_id"].map(table.set_index("image_id")["path"])
    said = [str(words).removeprefix(f"{path}: ") for words, path in zip(frame[text], paths, strict=True)]
    return pd.DataFrame({"image_id": frame["image_id"], "path": paths, text: said})


@dataclass(frozen=True)
class Section:
    """A heading, a table (its heads first; first column names, the others numbers) and what is to be said below it."""

    heading: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def inventory_sections(found: Mapping[str, Any], published: int | None, split_made: bool = True) -> list[Section]:
    """Put an inventory, see `take_inventory`, into tables and words; what is empty has no section.

    `published` images the data set has, None where that is not known; `split_made`: they could be assigned to splits.
    """
    lesions = found["lesions"]
    known = {
        "with known lesions": lesions["with_lesions"],
        "known to have none": lesions["without_lesions"],
        "lesions unknown": lesions["unknown"],
    }
    as_annotated = ["as annotated; preparing shows what can be drawn"]
    if found["duplicates"] is not None:
        known["rejected: a lesion cannot be drawn"], as_annotated = lesions["rejected"], []
    sections = [
        _images(found, published),
        _counts(BY_NAME[0], "reason", "images", found["left_out"]),
        _splits(found["leaks"], split_made),
        _counts("Lesions", "", "images", known, as_annotated),
        _counts("Lesions by type", "type", "lesions", lesions["types"]),
        _counts(BY_NAME[1], "note", "images", lesions["notes"]),
        _counts("Original sizes", "height x width, px", "images", _sizes(found["sizes"])),
        _counts("File formats", "format", "images", found["formats"]),
        _counts("Grey values", "bits and colours", "images", found["greys"]),
    ]
    return [section for section in sections if len(section.rows) > 1]


def _sizes(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Sum up the sizes of images that are cut out one by one: a range says more than a list."""
    if len(counts) <= MOST_SIZES:
        return counts
    sides = zip(*(map(int, size.split(" x ")) for size in counts), strict=True)
    span = " x ".join(f"{min(side)} to {max(side)}" for side in map(list, sides))
    return {f"{span} ({len(counts)} sizes)": sum(counts.values())}


def _images(found: Mapping[str, Any], published: int | None) -> Section:
    counts = {"found": found["images"]}
    notes = []
    if published is not None:
        counts["in the whole data set as published"] = published
        if found["images"] < published:
            notes = ["fewer than published: options of the data set leave images out, or the download is not complete"]
    counts |= {"left out": found["images"] - found["used"], "used": found["used"]}
    if found["duplicates"] is None:
        notes.append(UNCHECKED)
    if found["duplicates"]:
        counts["of these with the pixels of another one"] = found["duplicates"]
    if found["duplicates_in_splits"]:
        notes.append(
            f"warning: {found['duplicates_in_splits']} pictures stand in more than one split under different names: "
            "the same image is trained and tested on"
        )
    notes += [f"warning: {what}" for what in mixed(found["lesions"]["notes"], found["used"])]
    return _counts("Images", "", "images", counts, notes)


def _splits(leaks: Mapping[str, Any], made: bool) -> Section:
    rows: list[Sequence[str]] = [("split", "images", "fraction", "benign", "malignant", "patients")]
    for row in leaks["splits"]:
        images, malignant = row["images"], row["malignant"]
        if made or images:
            counts = [f"{count:,}" for count in (images - malignant, malignant, row["patients"])]
            rows.append((row["split"] or "(none)", f"{images:,}", f"{row['fraction']:.1%}", *counts))
    notes = ["error: the images cannot be assigned to splits; the terminal says why"]
    if made:
        said = f"{leaks['patients']} patients, {leaks['breasts']} breasts, {leaks['files']} files"
        notes = [f"in more than one split: {said}", *(f"warning: {warning}" for warning in leaks["warnings"])]
    return Section("Split and leaks", rows, notes)


def _counts(heading: str, name: str, number: str, counts: Mapping[str, int], notes: Sequence[str] = ()) -> Section:
    """List the first counts, the others in one line."""
    rows = [(name, number), *((text, f"{count:,}") for text, count in list(counts.items())[:MOST_ROWS])]
    rest = list(counts.values())[MOST_ROWS:]
    if rest:
        rows.append((f"({len(rest)} others)", f"{sum(rest):,}"))
    return Section(heading, rows, notes)


def sections_text(sections: Sequence[Section], width: int) -> str:
    """Draw sections as text in lines of at most `width`: a table where a row has several numbers, else in one run."""
    lines = []
    for section in sections:
        body = ["; ".join(f"{name}:{TOGETHER}{number}" for name, number, *_ in section.rows[1:])]
        if len(section.rows[0]) > 2:
            body = plain_table(section.rows, numbers=True)
        heads = [section.heading, *[""] * (len(body) + len(section.notes))]
        for head, text in zip(heads, [*body, *section.notes], strict=False):
            lines += _wrapped(text, width, f"{head:<{INDENT}}", " " * INDENT)
    return "\n".join(lines)


def write_inventory_page(
    path: Path, title: str, subtitle: str, sections: Sequence[Section], sheet: Path | None, settings: Mapping[Any, Any]
) -> Path:
    """Write the page and return its path; what it says must name no patient, no file and no folder.

    `subtitle` is what was done, in a sentence; `sheet` the contact sheet as PNG; `settings` decided what was found.
    """
    png = base64_of(sheet.read_bytes()) if sheet else ""
    rows = [("name", "value"), *((name, str(value)) for name, value in settings.items())]
    sections = [*sections, Section("Settings", rows)]
    return write_page(path, "inventory.html.j2", title=title, subtitle=subtitle, sections=sections, png=png)
