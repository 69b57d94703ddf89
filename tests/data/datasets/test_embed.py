import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.embed import CLINICAL, METADATA, embed
from tests.layouts.drawing import failure_of, save_mammogram, spoil, written_by
from tests.layouts.embed import TABLES, write_embed

failure = partial(failure_of, embed)
written = written_by(write_embed)


def test_findings_meet_images_by_exam_and_side(written):
    labels = embed(written[0]).groupby(["patient_id", "laterality"])["label"].agg(["min", "max", "size"])
    for patient in range(12):
        for side in "LR":
            expected = int(patient % 2 == 1 and side == "L")
            assert labels.loc[(str(10000007 + patient), side)].tolist() == [expected, expected, 2]


def test_what_has_no_label_and_what_is_no_whole_view_is_left_out_and_said(written, caplog):
    embed(written[0])
    assert (
        "breasts whose label is unknown (no pathology): left out (1): 1.2.845.113682.10000013.55500069" in caplog.text
    )
    assert "spot and magnification views: left out (1)" in caplog.text
    assert len(embed(written[0], special_views=True)) == len(embed(written[0])) + 1
    assert len(embed(written[0], image_types=["cview"])) == 1
    assert len(embed(written[0], image_types=["2D", "cview"])) == len(embed(written[0])) + 1


@pytest.mark.parametrize(
    ("asses", "bside", "severity", "label"),
    [
        ("S", "L", "0.0", 1),
        ("N", "L", "1", 1),  # a pathology says more than a BI-RADS
        ("S", "", "1", 1),
        ("S", "R", "0", None),  # the other breast's pathology says nothing of this one
        ("S", "L", "2", 0),
        ("S", "L", "6.0", 0),
        ("N", "", "", 0),
        ("b", "", "", 0),
        *((asses, "", "", None) for asses in "APSMKX"),
        ("", "", "", None),
    ],
)
def test_the_label_of_a_breast(download, asses, bside, severity, label):
    table = download / TABLES / CLINICAL
    spoil(table, "10000007,5550000,1,Diagnostic,L,B,,", f"10000007,5550000,1,Diagnostic,L,{asses},{bside},{severity}")
    left = embed(download).query("patient_id == '10000007' and laterality == 'L'")
    assert left["label"].unique().tolist() == ([] if label is None else [label])


@pytest.mark.parametrize(
    ("more", "label"), [("A,,", None), ("N,,", 0), ("S,L,1", 1), ("S,L,4", 0), ("S,R,4", None), ("A,L,4", 0)]
)
def test_one_finding_of_several_says_something_of_the_whole_breast(download, more, label):
    with (download / TABLES / CLINICAL).open("a") as table:
        table.write(f"10000007,5550000,3,Diagnostic,L,{more}\n")  # beside one that is negative
    left = embed(download).query("patient_id == '10000007' and laterality == 'L'")
    assert left["label"].unique().tolist() == ([] if label is None else [label])


def test_the_reduced_tables_are_read_where_they_have_the_columns(written, download):
    whole = embed(written[0])
    folder = download / TABLES
    for name in (METADATA, CLINICAL):
        rows = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        rows.iloc[:, ::-1].to_csv(folder / name.replace(".csv", "_reduced.csv"))
        (folder / name).write_text("broken")
    assert embed(download).drop(columns=["path"]).equals(whole.drop(columns=["path"]))
    shutil.copy(written[0] / TABLES / CLINICAL, folder / CLINICAL)
    reduced = folder / CLINICAL.replace(".csv", "_reduced.csv")
    pd.read_csv(reduced).drop(columns="path_severity").to_csv(reduced)
    assert len(embed(download)) == len(whole)


def test_lesions_are_known_where_there_is_a_box_or_nothing_at_all(download, written, truth):
    table = embed(written[0]).set_index("image_id")
    assert 0 < (~table["lesions_known"]).sum() == (~truth["lesions_known"]).sum()
    image = truth.index[truth["masks"].map(len) == 1][0]
    for text, message in (("((1, 2, 3),)", "a box without four corners"), ("((9, 2, 3, 4),)", "a box without extent")):
        metadata = pd.read_csv(download / TABLES / METADATA, dtype=str, keep_default_na=False)
        metadata.loc[metadata["anon_dicom_path"].str.contains(image), "ROI_coords"] = text
        metadata.to_csv(download / TABLES / METADATA, index=False)
        assert not embed(download).set_index("image_id").loc[image, "lesions_known"], message


def test_everything_wrong_is_listed_at_once(download):
    spoil(download / TABLES / CLINICAL, ",L,M,L,", ",X,Z,L,")
    spoil(download / TABLES / CLINICAL, ",L,4.0", ",L,9")
    spoil(download / TABLES / METADATA, ",L,CC,2D", ",U,CC,2D")
    first = next(download.rglob("*.dcm"))
    shutil.copyfile(first, first.with_name("1.2.3.dcm"))
    (first.parents[1] / "again").mkdir()
    shutil.copyfile(first, first.parents[1] / "again" / first.name)
    save_mammogram(download / "stray.dcm", np.zeros((8, 8)), "")
    message = failure(download)
    for part in (
        "unknown side (1): line 4 ('X')",
        "unknown asses (1): line 4 ('Z')",
        "unknown path_severity (1)",
        "unknown ImageLateralityFinal (1): line 2 ('U')",
        "images without a row in the table",
        "1.2.3",
        "images that are there twice (1)",
    ):
        assert part in message
