"""Other hospitals: networks by data sets, from folders as lemlight.evaluate leaves them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from lemlight.metrics.classification import summarize
from lemlight.metrics.operating import Operating
from lemlight.report import report
from lemlight.reporting.comparison.transfer import (
    about,
    describe,
    find_evaluations,
    names_of,
    transfer_table,
    transfer_text,
    write_transfer,
)
from lemlight.settings import ReportSettings, place_of
from tests.layouts.run_folders import NAME, predictions_of, write_run


def described(name, **dataset):
    return describe(dataset, name, place_of(dataset))


SETS = {
    "plain": described("phantom", _target_="x", root=f"/data/{NAME}", vendor="plain", prepare={"height": 3}),
    "hard": described("phantom", _target_="x", root=f"/data/{NAME}", vendor="hard", split={}),
}


SOFT = described("phantom", _target_="x", root=f"/data/{NAME}", vendor="soft")


def write_evaluation(folder, network, tested, *, error=0.0, known=0, seed=0, split="test", predictions=None):
    """The files of one evaluation of the network that was trained on `network` (a key of SETS)."""
    if predictions is None:
        predictions = predictions_of(error=error, seed=seed, images=160).assign(split=split)
    point = Operating(rule=0.4).point("image")
    said = about(SETS[network], "lem-resnet18-seed0", SETS.get(tested, SOFT), known)
    folder.mkdir(parents=True)
    summary = summarize(predictions, point=point, rule=0.4, resamples=100) | {"about": said}
    (folder / "metrics.json").write_text(json.dumps(summary))
    predictions.to_csv(folder / "predictions.csv", index=False)
    checkpoint = folder.parent / "trained" / network / "checkpoints" / "best.ckpt"
    (folder / "config.yaml").write_text(yaml.safe_dump({"checkpoint": str(checkpoint)}))
    return predictions


@pytest.fixture
def square(tmp_path):
    """Two networks on two data sets; the one trained on plain images does worse on the others."""
    tables = {}
    for place, (network, tested) in enumerate((a, b) for a in SETS for b in SETS):
        error = 2.0 if (network, tested) == ("plain", "hard") else 0.2
        known = 12 if (network, tested) == ("hard", "hard") else 0
        tables[network, tested] = write_evaluation(
            tmp_path / f"{place}", network, tested, error=error, known=known, seed=place
        )
    return tmp_path, tables


def test_networks_by_data_sets_with_the_drop_and_its_interval(square):
    root, tables = square
    found = transfer_table(find_evaluations(root)[0], resamples=400).set_index(["trained_on", "tested_on"])
    assert found.index.tolist() == [(f"phantom, vendor={a}", f"phantom, vendor={b}") for a in SETS for b in SETS]
    auc = {key: roc_auc_score(table["label"], table["probability"]) for key, table in tables.items()}
    away = found.loc["phantom, vendor=plain", "phantom, vendor=hard"]
    assert away["auroc"] == pytest.approx(auc["plain", "hard"])
    assert away["drop"] == pytest.approx(auc["plain", "plain"] - auc["plain", "hard"])
    assert 0 < away["drop_low"] < away["drop"] < away["drop_high"]
    back = found.loc["phantom, vendor=hard", "phantom, vendor=plain"]
    assert back["drop_low"] < 0 < back["drop_high"]
    home = found.loc["phantom, vendor=hard", "phantom, vendor=hard"]
    assert home["own"]
    assert np.isnan(home["drop"])
    assert (home["training_images"], home["threshold"]) == (12, 0.4)


def test_the_shift_between_two_vendors_is_found_and_a_harmless_one_is_not(tmp_path):
    """Of what the demo's network said: its own test split, and other women on a soft and on a hard machine."""
    recorded = pd.read_csv(Path(__file__).with_name("vendors.csv")).assign(split="test")
    for vendor, rows in recorded.groupby("vendor"):
        write_evaluation(tmp_path / vendor, "plain", vendor, predictions=rows)
    found = transfer_table(find_evaluations(tmp_path)[0], resamples=1000).set_index("tested_on")
    soft, hard = (found.loc[f"phantom, vendor={vendor}"] for vendor in ("soft", "hard"))
    assert soft["auroc"] == pytest.approx(0.753, abs=0.001)
    assert 0.05 < soft["drop_low"] < soft["drop"] < soft["drop_high"]
    assert soft["sensitivity"] < 0.1  # the threshold of the own data finds next to nothing here
    assert hard["drop_low"] < 0 < hard["drop_high"]


def test_the_page_holds_all_of_it_and_names_nobody(square, read_page):
    root, _ = square
    table, (page, csv) = write_transfer(find_evaluations(root)[0], 400, root / "out")
    text = page.read_text(encoding="utf-8")
    shown = read_page(text)
    assert NAME not in text
    assert str(root) not in text
    for part in ("phantom, vendor=hard", "drop +0.", "12 training images", "Calibration slope", "Research only"):
        assert part in shown.text
    assert len(pd.read_csv(csv)) == 4
    assert len(transfer_text(table).splitlines()) == 2 + 4


def test_two_splits_of_one_data_set_are_two_columns(tmp_path, read_page):
    for place, split in enumerate(("test", "val")):
        write_evaluation(tmp_path / split, "plain", "plain", split=split, seed=place, error=place)
    table, (page, _) = write_transfer(find_evaluations(tmp_path)[0], 100, tmp_path / "out")
    assert table["tested_on"].tolist() == ["phantom, test split", "phantom, val split"]
    text = read_page(page.read_text(encoding="utf-8")).text
    assert all(f"{auroc:.3f}" in text for auroc in table["auroc"])


def test_without_the_own_test_split_the_training_run_stands_in_or_it_is_said(tmp_path):
    write_evaluation(tmp_path / "0", "plain", "hard", error=1.0)
    assert (
        "evaluate the checkpoint on its own data"
        in transfer_table(find_evaluations(tmp_path)[0], 100)["drop_reason"][0]
    )
    write_run(tmp_path / "trained" / "plain", predictions=predictions_of(error=0.1))
    table = transfer_table(find_evaluations(tmp_path)[0], 100)
    assert table["drop"][0] > 0


def test_folders_are_numbered_and_settings_named_where_they_differ():
    one, two = (described("folder", root=root, csv="images.csv") for root in ("/a", "/b"))
    assert names_of([one, two, one, SETS["plain"]]) == ["folder 1", "folder 2", "folder 1", "phantom"]
    assert "/a" not in json.dumps(one)
    assert not about(one, "n", two, 0)["own"]
    assert about(one, "n", described("folder", root="/a", csv="images.csv"), 0)["own"]


DEEP = "[" * 10**4


def test_a_damaged_evaluation_is_named_and_what_is_none_is_passed_over(square, capsys):
    root, _ = square
    write_run(root / "training")
    (root / "1" / "predictions.csv").write_text("")
    (root / "2" / "metrics.json").write_text(DEEP)
    (root / "3" / "config.yaml").write_text("[]")
    found, unreadable = find_evaluations(root)
    assert [one.folder.name for one in found] == ["0"]
    assert [line.split(" is missing")[0] for line in unreadable] == ["1: predictions.csv", "2: metrics.json"]
    report(settings_of_a_report(root))
    assert "damaged: 2: metrics.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [{"about": "x"}, {"images": "many"}, {"operating": {}}, {"calibration": {"slope": [1]}}, {"split": "Doe^Jane"}],
)
def test_values_of_other_types_are_damage(square, change):
    root, _ = square
    values = json.loads((root / "1" / "metrics.json").read_text())
    (root / "1" / "metrics.json").write_text(json.dumps(values | change))
    assert len(find_evaluations(root)[0]) == 3


def settings_of_a_report(root):
    return ReportSettings(
        runs=str(root), question=None, resamples=100, to=None, output=str(root / "report"), choices={}
    )


def test_the_report_of_evaluations_alone_is_that_page(square, capsys):
    root, _ = square
    assert report(settings_of_a_report(root)).name == "hospitals.html"
    assert "| phantom, vendor=plain | phantom, vendor=hard" in capsys.readouterr().out
    assert (root / "report" / "hospitals.csv").is_file()
