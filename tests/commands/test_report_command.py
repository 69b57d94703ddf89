"""The report command on real runs."""

import re

import cv2
import pandas as pd
import pytest

RUNS = (("gap", 0), ("lem", 0))


@pytest.fixture(scope="module")
def runs(lemlight_run, phantom, tmp_path_factory):
    """Two poolings on the phantom, one epoch, in one folder."""
    root = tmp_path_factory.mktemp("runs")
    for pooling, seed in RUNS:
        lemlight_run("train", *phantom, f"pooling={pooling}", f"seed={seed}", folder=root / f"{pooling}-{seed}")
    return root


@pytest.fixture(scope="module")
def reported(lemlight_run, runs):
    return lemlight_run("report", f"runs={runs}", "question=Does LEM find lesions better than GAP?")


def test_the_page_and_the_tables_are_left(reported):
    assert str(reported.folder / "report.html") in reported.out
    table = pd.read_csv(reported.folder / "table.csv")
    assert dict(zip(table["method"], table["runs"], strict=True)) == {"gap": 1, "lem": 1}
    assert "| lem" in reported.out
    assert "One run (one seed) only of every method" in reported.out
    assert pd.read_csv(reported.folder / "runs.csv")["state"].tolist() == ["done"] * 2
    assert set(pd.read_csv(reported.folder / "differences.csv")["metric"]) >= {"auroc", "dsc"}


def test_the_page_names_no_image_no_patient_and_no_path(reported, runs):
    page = (reported.folder / "report.html").read_text(encoding="utf-8")
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    table = pd.read_csv(runs / "gap-0/predictions.csv")
    for name in {*table["image_id"], *table["patient_id"], str(runs), str(reported.folder)}:
        assert name not in plain, name
    assert "Does LEM find lesions better than GAP?" in plain
    assert "Mammogram 2:" in plain
    assert "python -m lemlight.train" in plain


def test_all_runs_leave_the_same_examples(runs):
    folders = [runs / f"{pooling}-{seed}/examples" for pooling, seed in RUNS]
    lists = [pd.read_csv(folder / "examples.csv") for folder in folders]
    assert all(one["image_id"].tolist() == lists[0]["image_id"].tolist() for one in lists)
    assert len(lists[0]) > 2
    for folder in folders:
        image, map_ = (cv2.imread(str(folder / f"1_{kind}.png"), -1) for kind in ("image", "map"))
        assert image.shape == map_.shape == (96, 64)
        assert not any(image_id in path.name for path in folder.iterdir() for image_id in lists[0]["image_id"])
    first, other = (cv2.imread(str(folders[place] / "1_map.png"), -1) for place in (0, 1))
    assert (first != other).any()


def test_mistakes_are_said(refused, runs, tmp_path):
    assert "set runs=DIR" in refused("report", f"runs={tmp_path}")
    assert "set runs=DIR" in refused("report", f"runs={tmp_path / 'gone'}")
    assert "runs" in refused("report")
    assert "resamples=3" in refused("report", f"runs={runs}", "resamples=3")
    assert "output=DIR" in refused("report", f"runs={runs}", f"output={runs / 'lem-0'}")
