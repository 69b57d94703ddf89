"""The table of localization settings: each run's own choice, the pooled one and the oracle, with intervals."""

import numpy as np
import pandas as pd
import pytest

from lemlight.localization.pooled import tried_path, write_tried
from lemlight.report import report
from lemlight.reporting.comparison.methods import compare_runs
from lemlight.reporting.comparison.runs import find_runs
from lemlight.reporting.comparison.tables import pooled_table
from lemlight.settings import ReportSettings
from tests.layouts.run_folders import NAME, config_of, predictions_of, tried_of, write_run


def table_of(root):
    return pooled_table(compare_runs(find_runs(root), 200), 200)


def test_a_row_holds_the_own_choice_the_pooled_one_and_the_oracle(sweep):
    table = table_of(sweep).set_index("method")
    assert table.index.tolist() == ["gap", "lem"]  # in the order of the folders
    row = table.loc["lem"]
    assert (row["localization"], row["runs"], row["validation_images"], row["chosen"]) == ("importance", 2, 9, True)
    assert (row["keep"], row["cutoff"], row["cutoff_by"]) == (1.0, 0.5, "mass")
    gain = 0.05 + 0.001 * np.arange(40).mean()
    assert row["dsc"] == pytest.approx(0.6)
    assert row["dsc_pooled"] == pytest.approx(0.6 + gain, abs=0.0003)
    assert row["gap"] == pytest.approx(0, abs=1e-9)
    assert row["dsc_pooled_low"] < row["dsc_pooled"] < row["dsc_pooled_high"]
    assert row["pointing"] == row["pointing_pooled"] == 1
    assert pd.isna(row["dsc_difference"])  # there is one map only


def localized_by(root, method, dice):
    """Add a localization method to a run."""
    rows = pd.read_csv(root / "localization_images.csv")
    other = rows.assign(method=method, dsc=rows["dsc"].where(rows["dsc"].isna(), dice))
    pd.concat([rows, other]).to_csv(root / "localization_images.csv", index=False)
    ids = rows.loc[rows["dsc"].notna(), "image_id"].tolist()
    for split, image_ids in (("test", ids), ("val", [f"v{n}" for n in range(9)])):
        tried = {"importance": tried_of(image_ids, 0.5), method: tried_of(image_ids, dice)}
        write_tried(tried, tried_path(root, split))


def test_the_maps_of_the_same_networks_are_compared_over_folds(tmp_path):
    for fold in range(2):
        predictions = predictions_of(name=f"{NAME}{fold}")
        config = config_of("lem", dataset={"split": {"scheme": "kfold", "fold": fold}})
        localized_by(write_run(tmp_path / str(fold), config=config, predictions=predictions, dice=0.5), "cam", 0.3)
    table = table_of(tmp_path).set_index("localization")
    row = table.loc["cam"]
    assert row["runs"] == 2
    assert row["dsc_difference"] == pytest.approx(-0.2, abs=0.001)
    assert row["dsc_difference_low"] <= row["dsc_difference"] + 1e-9
    assert pd.isna(table.loc["importance", "dsc_difference"])


def without(root):
    tried_path(root, "test").unlink()


def damaged(root):
    tried_path(root, "val").write_bytes(b"no zip")


def other_candidates(root):
    write_tried({"importance": tried_of(["v"], 0.5, cutoffs=(0.2, 0.4, 0.6))}, tried_path(root, "val"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, "run 1 kept no localization_test.npz: train again"),
        (damaged, "run 1: localization_val.npz is damaged"),
        (other_candidates, "the runs try different settings"),
    ],
)
def test_without_what_a_run_tried_the_pooled_choice_is_undefined_and_the_page_says_why(
    tmp_path, change, said, read_page
):
    change(write_run(tmp_path / "runs/a", config=config_of("lem", 0), dice=0.5))
    write_run(tmp_path / "runs/b", config=config_of("lem", 1), dice=0.7)
    row = table_of(tmp_path / "runs").iloc[0]
    assert said in row["reason"]
    assert row["dsc"] == pytest.approx(0.6)
    assert pd.isna(row["dsc_pooled"])
    out = tmp_path / "out"
    report(ReportSettings(runs=str(tmp_path / "runs"), question=None, resamples=200, to=None, output=str(out)))
    assert f"undefined: {row['reason']}" in read_page((out / "report.html").read_text(encoding="utf-8")).text
    assert NAME not in (out / "localization_settings.csv").read_text()


def test_no_validation_lesion_leaves_the_defaults_and_nothing_localized_no_row(tmp_path):
    run = write_run(tmp_path / "a", dice=0.5)
    tried_path(run, "val").unlink()
    row = table_of(tmp_path).iloc[0]
    assert (row["chosen"], row["validation_images"], row["cutoff_by"]) == (False, 0, "maximum")
    assert row["gap"] == pytest.approx(row["dsc_oracle"] - 0.5, abs=0.001)
    (run / "localization_images.csv").unlink()
    assert table_of(tmp_path).empty
