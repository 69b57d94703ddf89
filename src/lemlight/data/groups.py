"""What groups images: view, side, lesion, density, vendor, age, site; from the table, the lesions, or the header."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lemlight.data.preparing.store import PreparedStore
from lemlight.data.reading.headers import read_headers

IN_TABLE = ("view", "laterality", "density", "vendor", "site")
SIZES = {"up to 10 mm": 0.0, "10 to 20 mm": 10.0, "above 20 mm": 20.0}  # diameter of a disc of the lesion's area
AGES = {"below 40": 0, "40 to 49": 40, "50 to 59": 50, "60 to 69": 60, "70 and older": 70}
NO_LESION = "no lesion"
ORDER = (*SIZES, *AGES, NO_LESION)  # other values stand in alphabetical order
VIEWS = "cc mlo ml lm lmo sio iso xccl xccm fb at cv rcc lcc rmlo lmlo"
DENSITIES = "a b c d 1 2 3 4 i ii iii iv acr birads bi rads density"
VENDORS = (
    "hologic lorad selenia a company ge general electric medical systems healthcare siemens healthineers ag gmbh inc "
    "llc ltd co corp corporation philips planmed oy ims giotto srl spa metaltronica fuji fujifilm film kodak eastman "
    "carestream health agfa sectra imtec imaging konica minolta canon toshiba shimadzu varian trex howtek icad "
    "vidar lumisys dba xerox lemlight phantom plain soft hard"
)
KNOWN = {"view": VIEWS, "laterality": "l r", "density": DENSITIES, "vendor": VENDORS, "site": ""}


def group_columns(table: pd.DataFrame, store: PreparedStore, names: Sequence[str]) -> pd.DataFrame:
    """Return a column of texts for each of the names, "" where a value is not known, with table's index.

    What the table does not say of vendor and age is read from the headers of its DICOM files; lesion_size is that of
    the largest lesion of the image, where the spacing of its pixels is known.
    """
    found = pd.DataFrame(index=table.index)
    wanted = [tag for tag, name in (("vendor", "vendor"), ("age", "age_band")) if name in names]
    said = _from_headers(table, [tag for tag in wanted if (table[tag] == "").all()])
    for name in names:
        if name in IN_TABLE:
            found[name] = said[name] if name in said else table[name]
        elif name == "age_band":
            found[name] = (said["age"] if "age" in said else table["age"]).map(age_band)
        else:
            of_image = _lesion_type if name == "lesion_type" else _lesion_size
            found[name] = [of_image(store, store.index_of(image_id)) for image_id in table["image_id"]]
    return found


def public_groups(groups: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns with numbers in place of what a page may not name, and what each number stands for.

    A value of the table or of a header is named where all its words are KNOWN ones: any other may be a hospital's name,
    or a patient's. The second table has the columns variable, number and value.
    """
    numbered, rows = groups.copy(), []
    for name in (name for name in groups if name in KNOWN):
        known = set(KNOWN[name].split())
        others = sorted(value for value in groups[name].unique() if not set(re.findall(r"\w+", value.lower())) <= known)
        numbers = {value: f"no. {number}" for number, value in enumerate(others, start=1)}
        numbered[name] = groups[name].replace(numbers)
        rows += [(name, number, value) for value, number in numbers.items()]
    return numbered, pd.DataFrame(rows, columns=["variable", "number", "value"])


def exams(table: pd.DataFrame) -> "pd.Series[str]":
    """The exam of every image: what the table says, else the study dates of its DICOM files; "" where neither does."""
    if (table["exam"] != "").any():
        return table["exam"]
    return _from_headers(table, ["exam"])["exam"]


def age_band(age: str) -> str:
    """Return the band of an age in years, as a table (55) or a header (055Y) says it; "" where that is none."""
    years = re.fullmatch(r"0*(\d{1,3})(?:[.,]\d+)?Y?", age.strip().upper())
    return [name for name, least in AGES.items() if int(years[1]) >= least][-1] if years else ""


def _lesion_type(store: PreparedStore, place: int) -> str:
    if store.mask(place) is None:
        return ""
    types = set(store.lesion_types(place))
    return NO_LESION if not types else "several types" if len(types) > 1 else types.pop()


def _lesion_size(store: PreparedStore, place: int) -> str:
    mask = store.mask(place)
    if mask is None:
        return ""
    pixels = np.bincount(mask.ravel())[1:].max(initial=0)
    if not pixels:
        return NO_LESION
    area = store.pixel_mm2(place)
    diameter = 2 * math.sqrt(pixels * (area or 0) / math.pi)
    return [name for name, least in SIZES.items() if diameter >= least][-1] if area else ""


def _from_headers(table: pd.DataFrame, wanted: Sequence[str]) -> pd.DataFrame:
    """Read fields of `Header` from every DICOM file; a file that does not say, or is no DICOM, gives ""."""
    headers = read_headers(table["path"].tolist()) if wanted else []
    return pd.DataFrame({name: [getattr(header, name) for header in headers] for name in wanted}, index=table.index)
