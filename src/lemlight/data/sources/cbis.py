"""CBIS-DDSM: 3,032 scanned film mammograms of 1,566 patients with masses and calcifications, all of them outlined.

Layout: the four tables `{mass,calc}_case_description_{train,test}_set.csv` below root (or in the folder `tables`) and
the images, anywhere below root, in any of three layouts, also mixed; each file is sorted into its case by itself:
- folders: `Mass-Training_P_00001_LEFT_CC/<date or UID>/<series>/1-1.dcm`, as the download tool writes it;
- uids: folders of StudyInstanceUID and SeriesInstanceUID, as of newer tools; PatientID in the header is the case;
- jpeg: the JPEG copy, `jpeg/<SeriesInstanceUID>/1-172.jpg`, where `csv/dicom_info.csv` names the case.
Where neither folder, header nor dicom_info.csv names it, the SeriesInstanceUID of the tables' paths does. JPEG and PNG
copies beside DICOM files are not used.

Label: an image is malignant if any of its abnormalities is; BENIGN_WITHOUT_CALLBACK is benign.
Image: one patient, side and view; listed as mass and as calc it is one image, with the lesions of both.
Split: the official one, that is the tables' own. They were divided by patient for mass and for calc apart, so that 31
patients stand on both sides: test wins, with all images of such a patient (patient_disjoint), or for a mammogram that
any table has in test (as published).
Lesions: the mask of each abnormality. Tables, descriptions and names mix up mask and crop, so shape and pixels decide
(`cbis_masks.choose_mask`). A mask of another size is rescaled if it has the mammogram's aspect within 2 %, else left
out; then, and where any other of its abnormalities has no mask, the lesions of the image are unknown.
All of that is counted in one message, and what is missing, broken or of another data set is listed in one error.

Source: Sawyer-Lee, Gimenez, Hoogi, Rubin: Curated Breast Imaging Subset of Digital Database for Screening Mammography
(CBIS-DDSM), The Cancer Imaging Archive 2016, doi 10.7937/K9/TCIA.2016.7O02S9CY, CC BY 3.0, to be had from
https://www.cancerimagingarchive.net/collection/cbis-ddsm/. Paper: Lee et al., A curated mammography data set for use in
computer-aided detection and diagnosis research, Scientific Data 4, 2017, doi 10.1038/sdata.2017.177.
"""

import logging
from pathlib import Path

import pandas as pd

from lemlight.data.lesions import Lesion
from lemlight.data.sources.cbis_files import CaseFile, Cases, sort_files
from lemlight.data.sources.cbis_masks import choose_mammogram, choose_mask, is_called_a_crop, is_named_as_in_the_table
from lemlight.data.sources.cbis_report import Oddities, summary
from lemlight.data.sources.cbis_tables import cases_by_series, group_images, read_tables
from lemlight.data.sources.download import Problems
from lemlight.data.sources.listing import list_files
from lemlight.data.table import check_table
from lemlight.errors import LemlightError

FILES = 2  # of an abnormality: mask and crop, 10,239 files with the mammograms of 3,103 folders

logger = logging.getLogger(__name__)


def cbis_table(
    root: Path, tables: str | Path | None = None, patient_disjoint: bool = True, allow_missing: bool = False
) -> pd.DataFrame:
    """Build the image table of CBIS-DDSM below `root`; the four tables may lie in another folder, `tables`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing or broken only without `allow_missing`.
    """
    problems = Problems("CBIS-DDSM", root)
    paths = list_files(root, "CBIS-DDSM")
    place = Path(tables) if tables else root
    descriptions = read_tables(list_files(place, "CBIS-DDSM tables") if tables else paths, place, problems)
    cases = sort_files(paths, root, cases_by_series(descriptions), problems)
    odd = Oddities()
    images = _locate(group_images(descriptions, patient_disjoint), cases, odd, problems)
    if len(descriptions):
        listed = {*descriptions["folder"], *descriptions["mask_folder"]}
        problems.incomplete("cases without a row in the tables", sorted(set(cases.files) - listed))
    problems.raise_any(allow_missing)
    if images.empty:
        raise LemlightError(f"no mammogram of CBIS-DDSM is left of {root}: check dataset.root")
    logger.info("%s", summary(descriptions, cases, odd, len(images), patient_disjoint))
    return check_table(images, "CBIS-DDSM")


def _locate(images: pd.DataFrame, cases: Cases, odd: Oddities, problems: Problems) -> pd.DataFrame:
    """Keep the images that have a file, with path, lesions and lesions_known; note those and the masks without one."""
    paths: list[str] = []
    lesions: list[tuple[Lesion, ...] | None] = []
    columns = (images[name] for name in ("image_id", "folders", "mask_folders", "mask_files"))
    for image, folders, mask_folders, mask_files in zip(*columns, strict=True):
        files = [file for name in folders for file in cases.files.get(name, ())]
        mammogram = choose_mammogram(files)
        paths.append(mammogram.path if mammogram else "")
        lesions.append(None)
        odd.mask_missing += [name for name in mask_folders if name not in cases.files]
        if mammogram:
            odd.several_files += [image] if len(files) > len(folders) else []
            pairs = zip(mask_folders, mask_files, strict=True)
            masks = [_mask(name, cases.files.get(name, []), mammogram, file, odd) for name, file in pairs]
            whole = tuple(mask for mask in masks if mask)
            lesions[-1] = whole if len(whole) == len(masks) else None
            odd.unknown += [image] if lesions[-1] is None else []
    missing = [not path for path in paths]
    problems.incomplete("mammograms without a file that can be used", images.loc[missing, "folders"].map(" or ".join))
    problems.incomplete("abnormalities without a mask file that can be used", odd.mask_missing)
    given = pd.Series([found or () for found in lesions], index=images.index, dtype=object)
    located = images.assign(path=paths, lesions=given, lesions_known=[found is not None for found in lesions])
    return located[[bool(path) for path in paths]]


def _mask(name: str, files: list[CaseFile], mammogram: CaseFile, table_name: str, odd: Oddities) -> Lesion | None:
    """Give the lesion of an abnormality, None without a usable mask; note what was odd about its files."""
    chosen, how = choose_mask(files, mammogram)
    if chosen is None:
        if how == "aspect":
            odd.aspect.append(name)
        elif files:
            (odd.mask_missing if len(files) < FILES else odd.no_mask).append(name)
        return None
    if how == "rescaled":
        odd.rescaled.append(name)
    if is_called_a_crop(chosen):
        odd.called_crop.append(name)
    if not is_named_as_in_the_table(chosen, files, table_name):
        odd.other_place.append(name)
    return Lesion("mask", "mass" if name.startswith("Mass") else "calcification", path=chosen.path)
