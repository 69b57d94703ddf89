import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.data.splits import leak_report, split_table
from lemlight.data.table import check_table
from lemlight.errors import LemlightError

SCHEMES = ("patient", "kfold", "image")


def cohort(benign, malignant, images=4, split=""):
    """Patients B000.. and M000..; of a malignant patient only the first image is malignant."""
    patients = [f"B{i:03}" for i in range(benign)] + [f"M{i:03}" for i in range(malignant)]
    rows = [(p, n) for i, p in enumerate(patients) for n in range(images if isinstance(images, int) else images[i])]
    table = pd.DataFrame(rows, columns=["patient_id", "n"])
    table["image_id"] = table["patient_id"] + "_" + table["n"].astype(str)
    table["label"] = (table["patient_id"].str.startswith("M") & (table["n"] == 0)).astype(int)
    table["laterality"] = table["n"].map(lambda n: "LR"[n // 2 % 2])
    table["view"] = table["n"].map(lambda n: ("CC", "MLO")[n % 2])
    table["lesions"], table["lesions_known"] = pd.Series([()] * len(table), dtype=object), False
    return check_table(table.assign(path="/x/" + table["image_id"], split=split))


cohorts = st.tuples(st.integers(12, 40), st.integers(12, 40)).flatmap(
    lambda n: st.lists(st.integers(1, 4), min_size=sum(n), max_size=sum(n)).map(lambda images: cohort(*n, images))
)


@settings(deadline=None, max_examples=25)
@given(cohorts, st.integers(0, 2**31), st.sampled_from(["patient", "kfold"]))
def test_no_patient_in_two_splits_all_rows_kept_classes_in_proportion(table, seed, scheme):
    result = split_table(table, scheme, seed=seed, folds=4, fold=seed % 4, test_fraction=0.25, val_fraction=0.2)
    pd.testing.assert_frame_equal(result.drop(columns="split"), table.drop(columns="split"))
    assert leak_report(result).leaking_patients == ()
    patients = result.groupby("patient_id").agg(split=("split", "first"), label=("label", "max"))
    for split, fraction in {"train": 0.55, "val": 0.2, "test": 0.25}.items():
        chosen = patients[patients["split"] == split]
        assert abs(len(chosen) - fraction * len(patients)) <= 1.5
        assert abs(chosen["label"].sum() - fraction * patients["label"].sum()) <= 2


@settings(deadline=None, max_examples=25)
@given(cohorts, st.integers(0, 2**31), st.sampled_from(SCHEMES))
def test_the_seed_decides_and_the_row_order_does_not(table, seed, scheme):
    shuffled = table.sample(frac=1, random_state=seed % 1000)
    first = split_table(table, scheme, seed=seed).set_index("image_id")["split"]
    second = split_table(shuffled, scheme, seed=seed)
    assert list(second.index) == list(shuffled.index)
    assert second.set_index("image_id")["split"].reindex(first.index).equals(first)


def test_every_patient_is_tested_in_exactly_one_fold():
    table = cohort(11, 9)
    tested = [split_table(table, "kfold", seed=3, folds=4, fold=fold).query("split == 'test'") for fold in range(4)]
    patients = [patient for rows in tested for patient in rows["patient_id"].unique()]
    assert sorted(patients) == sorted(table["patient_id"].unique())


def test_by_image_images_are_assigned_and_patients_leak():
    table = cohort(30, 30)
    result = split_table(table, "image", seed=0, test_fraction=0.2, val_fraction=0.1)
    assert result["split"].value_counts().to_dict() == {"train": 168, "test": 48, "val": 24}
    assert result.groupby("split")["label"].sum().to_dict() == {"train": 21, "test": 6, "val": 3}
    assert leak_report(result).leaking_patients


@pytest.mark.parametrize("scheme", ["patient", "kfold", "column"])
def test_a_patient_written_in_three_ways_stands_on_one_side_and_is_one_in_the_counts(scheme):
    table = pd.DataFrame({"patient_id": [form.format(p) for p in range(12) for form in ("{:04d}", "{}", "{}.0")]})
    table["label"] = [p % 2 for p in range(12) for _ in range(3)]
    table["image_id"] = table["path"] = [f"i{n}" for n in range(36)]
    table["laterality"], table["split"] = "L", np.repeat(["test", "train", "train"], 12)
    split = split_table(table, scheme, seed=0, folds=3)
    number = split["patient_id"].astype(float)
    assert split.groupby(number)["split"].nunique().tolist() == [1] * 12
    assert sum(row.patients for row in leak_report(split).splits) == 12


def test_a_patient_who_leaks_under_another_spelling_is_found():
    rows = [("a", "0017", "L", 1, "train"), ("b", "17.0", "L", 1, "test"), ("c", "p1", "", 0, "train")]
    table = pd.DataFrame(rows, columns=["path", "patient_id", "laterality", "label", "split"])
    table["image_id"] = table["path"]
    report = leak_report(table)
    assert (report.leaking_patients, report.leaking_breasts) == (("0017",), ("0017 L",))
    with pytest.raises(LemlightError, match="1 patients stand in more than one split: 0017;"):
        split_table(table, "column", seed=0)


def column_of(table, test_patients):
    return table.assign(split=np.where(table["patient_id"].isin(test_patients), "test", "train"))


def test_a_column_is_kept_and_val_is_taken_from_train_by_patient():
    table = column_of(cohort(10, 10), ["B000", "M000", "M001"])
    result = split_table(table, "column", seed=0, val_fraction=0.2)
    assert set(result.query("split == 'test'")["patient_id"]) == {"B000", "M000", "M001"}
    assert result.query("split == 'val'")["patient_id"].nunique() == 4
    assert leak_report(result).leaking_patients == ()
    assert split_table(result, "column", seed=9).equals(result)


def test_a_patient_in_train_and_test_is_named_with_both_remedies():
    table = column_of(cohort(10, 10), ["B000", "M000"])
    table.loc[table["patient_id"].isin(["B003", "M004"]) & (table["view"] == "CC"), "split"] = "test"
    with pytest.raises(LemlightError, match=r"2 patients .*: B003, M004; .*scheme=patient.*allow_leaks=true"):
        split_table(table, "column", seed=0)
    kept = split_table(table, "column", seed=0, allow_leaks=True)
    assert (kept["split"] == "test").equals(table["split"] == "test")
    assert set(leak_report(kept).leaking_patients) == {"B003", "M004"}


def test_an_incomplete_column_is_refused():
    table = column_of(cohort(5, 5), ["B000"])
    table.loc[[0, 7], "split"] = ""
    with pytest.raises(LemlightError, match="2 of 40 images have no split of their own: B000_0, B001_3"):
        split_table(table, "column", seed=0)
    with pytest.raises(LemlightError, match="no image in test"):
        split_table(cohort(5, 5, split="train"), "column", seed=0)


@pytest.mark.parametrize("scheme", [*SCHEMES, "column"])
def test_one_class_only_says_the_counts(scheme):
    with pytest.raises(LemlightError, match="one class only in the data set: 0 malignant and 40 benign images"):
        split_table(cohort(10, 0), scheme, seed=0)


def test_one_class_in_train_is_refused_and_in_test_allowed_with_a_warning():
    table = cohort(8, 8, images=1)
    malignant_in_test = column_of(table, [f"M{i:03}" for i in range(8)])
    with pytest.raises(LemlightError, match="one class only in the train split: 0 malignant and"):
        split_table(malignant_in_test, "column", seed=0)
    benign_in_test = split_table(column_of(table, ["B000", "B001"]), "column", seed=0, val_fraction=0.2)
    assert "test holds one class only (2 benign)" in leak_report(benign_in_test).text()


@pytest.mark.parametrize("scheme", ["patient", "kfold"])
def test_too_few_patients_are_counted(scheme):
    with pytest.raises(LemlightError, match=r"(too few|cannot be made).*1 malignant and 3 benign patients"):
        split_table(cohort(3, 1), scheme, seed=0)


def test_too_few_patients_left_for_val_are_counted():
    with pytest.raises(LemlightError, match=r"val split of 2 .* 1 malignant and 2 benign patients .*val_fraction"):
        split_table(cohort(3, 2), "patient", seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "official"}, "scheme=official: must be 'patient', 'kfold', 'image' or 'column'"),
        ({"seed": -1}, "seed=-1: must be greater than or equal to 0"),
        ({"test_fraction": 0.0}, "test_fraction=0.0: must be greater than 0"),
        ({"val_fraction": 1.0}, "val_fraction=1.0: must be less than 1"),
        ({"test_fraction": 0.6, "val_fraction": 0.4}, "together they must stay below 1"),
        ({"folds": 1}, "folds=1: must be greater than or equal to 2"),
        ({"folds": 4, "fold": 4}, "fold=4: folds count from 0, so it must be below folds=4"),
    ],
)
def test_settings_out_of_their_limits_are_refused(options, message):
    with pytest.raises(LemlightError, match=message):
        split_table(cohort(9, 9), **{"scheme": "kfold", "seed": 0, **options})


@pytest.fixture
def leaking():
    rows = [
        ("a", "1", "L", 1, "train"),
        ("b", "1", "L", 1, "test"),
        ("c", "2", "L", 0, "train"),
        ("d", "2", "R", 0, "test"),
        ("e", "3", "", 0, "train"),
        ("e", "3", "", 1, "val"),
        ("f", "4", "R", 0, "train"),
        ("g", "4", "R", 0, ""),
    ]
    return pd.DataFrame(rows, columns=["path", "patient_id", "laterality", "label", "split"])


def test_patients_breasts_and_files_on_several_sides_are_found(leaking):
    report = leak_report(leaking)
    assert report.leaking_patients == ("1", "2", "3")
    assert report.leaking_breasts == ("1 L",)
    assert report.leaking_files == ("e",)


def test_counts_per_split(leaking):
    counts = {row.split: (row.images, row.malignant, row.patients, row.fraction) for row in leak_report(leaking).splits}
    assert counts == {
        "train": (4, 1, 4, 0.5),
        "val": (1, 1, 1, 0.125),
        "test": (2, 1, 2, 0.25),
        "": (1, 0, 1, 0.125),
    }


def test_text_is_a_table_with_warnings(leaking):
    report = leak_report(leaking, "patient")
    lines = report.text().splitlines()
    assert lines[0] == "split by patient"
    assert lines[2].split() == ["train", "4", "50.0%", "1", "4"]
    assert "in more than one split: 3 patients, 1 breasts, 1 files" in lines
    assert "warning: val holds one class only (1 malignant): its AUC is undefined" in lines
    assert "these patients: 1, 2, 3" in lines
    assert "warning: 3 patients are trained and tested on: the figures do not hold for new patients" in lines
    assert "1, 2, 3" not in report.text(names=False)
    assert max(map(len, report.text(width=60).splitlines())) <= 60
    assert report.text(width=60).splitlines()[:6] == lines[:6]
