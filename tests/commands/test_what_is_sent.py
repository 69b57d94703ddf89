"""No patient, no image and no path in what a logger sends or in the page that is handed on."""

import pandas as pd
import pytest

PLANTS = [f"planted{word}" for word in ("patient", "image", "folder", "csv", "store", "run", "home")]


@pytest.fixture(scope="module")
def run(lemlight_run, write_folder, tmp_path_factory):
    """A training with both loggers on data whose every name is a planted word; one breast in both train and test."""
    home = tmp_path_factory.mktemp("plantedhome")
    root = home / "plantedfolder"
    write_folder(root, name="plantedimage-{patient:02}-{side}.png", patient_id="plantedpatient^{patient}")
    (root / "images.csv").rename(root / "plantedcsv.csv")
    data = ["dataset=folder", f"dataset.root={root}", "dataset.csv=plantedcsv.csv", f"store={home / 'plantedstore'}"]
    loggers = ["logger=wandb", "logger.tensorboard=true", "dataset.split.scheme=image", "examples=2"]
    return lemlight_run("train", *data, *loggers, folder=home / "plantedrun", own_process=True)


def wandb_records(content):
    """The records of a W&B run file, whole: in the file (LevelDB's log format) they are cut at blocks of 32 KiB."""
    assert content[:4] == b":W&B"
    parts, place = [], 7
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
    return b"".join(parts)


def planted(content):
    lower = content.lower()
    return [word for word in PLANTS if word.encode() in lower]


def test_the_words_are_planted(run):
    found = pd.read_csv(run.folder / "predictions.csv")
    assert found["patient_id"].str.startswith("plantedpatient").all()
    assert found["image_id"].str.startswith("plantedimage").all()
    assert "plantedpatient" in (run.folder / "leaks.json").read_text()
    config = (run.folder / "config.yaml").read_bytes()
    assert planted(config) == ["plantedfolder", "plantedcsv", "plantedstore", "plantedrun", "plantedhome"]


def test_wandb_is_sent_figures_and_no_names(run):
    (offline,) = (run.folder / "wandb").glob("offline-run-*")
    (file,) = offline.glob("*.wandb")
    records = wandb_records(file.read_bytes())
    for known in (b"efficientnet_lite0", b"test/acc", b"val/loss", b"train/loss", b"lem-efficientnet_lite0-seed0"):
        assert known in records
    assert planted(records) == []
    assert planted(file.read_bytes()) == []
    sent = [path for path in (offline / "files").rglob("*") if path.is_file()]
    assert len([path for path in sent if path.suffix == ".png"]) == 4
    for path in sent:
        assert planted(path.read_bytes()) == [], path.name
        assert planted(str(path.relative_to(offline)).encode()) == []


def test_tensorboard_is_sent_figures_and_no_names(run):
    files = [path for path in (run.folder / "logs" / "tensorboard").rglob("*") if path.is_file()]
    together = b"".join(path.read_bytes() for path in files)
    for known in (b"efficientnet_lite0", b"test/acc", b"val/loss", b"test/sheet"):
        assert known in together
    assert planted(together) == []
    assert [path.name for path in files if planted(path.name.encode())] == []


def test_the_page_names_nobody_and_no_folder(run):
    page = (run.folder / "report.html").read_bytes()
    assert b"patients are trained and tested on" in page
    assert b"dataset=folder" in page
    assert planted(page) == []
