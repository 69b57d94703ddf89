import json
import time

import numpy as np
import pandas as pd
from matplotlib.image import imsave

from lemlight.training.logging import build_loggers, finish_loggers, log_results, sent_config, unnamed
from tests.parts import part_of

WANDB = {"project": "poolings", "group": None, "name": "lem-0", "tags": [], "mode": "offline"}
SUMMARY = {"split": "test", "images": 2, "auroc": {"value": 0.9, "low": 0.8, "high": 1.0}, "f1": {"value": None}}
PREDICTIONS = pd.DataFrame(
    {
        "image_id": ["Jane-L", "Joe-R"],
        "patient_id": ["Jane", "Joe"],
        "split": ["test", "test"],
        "path": ["/archive/Jane.dcm", "/archive/Joe.dcm"],
        "label": [0, 1],
        "probability": np.array([0.25, 0.75], np.float32),
        "n_maxima": [3, 4],
        "n_minima": [2, 0],
    },
    index=[7, 3],
)


def wandb(folder, **options):
    return {"wandb": part_of("logger", "wandb")["wandb"] | {"save_dir": str(folder)} | options}


def tensorboard(folder):
    return {"tensorboard": part_of("logger", "tensorboard")["tensorboard"] | {"save_dir": str(folder / "logs")}}


def written(folder, last):
    """The file of an offline run, once wandb's service has written so far; it does so after the run has ended."""
    (records,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    for _ in range(200):
        if last in records.read_bytes():
            break
        time.sleep(0.1)
    return records.read_bytes()


def test_an_image_is_called_by_its_row():
    table = unnamed(PREDICTIONS)
    assert list(table.columns) == ["image", "label", "probability", "n_maxima", "n_minima"]
    assert table["image"].tolist() == [1, 2]
    assert table["n_maxima"].tolist() == [3, 4]
    assert unnamed(PREDICTIONS[:0]).empty


def test_lists_become_text_and_the_loggers_are_left_out():
    config = {"labels": ["benign", "malignant"], "logger": {"wandb": WANDB}, "dataset": {"keep": [1, 2], "root": "/x"}}
    assert sent_config(config) == {"labels": "benign, malignant", "dataset": {"keep": "1, 2"}}


def test_a_table_stays_in_its_run_and_leaves_nothing_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "home"))
    picture = tmp_path / "sheet.png"
    imsave(picture, np.zeros((4, 3)))
    loggers = build_loggers(wandb(tmp_path / "run", **WANDB), {})
    log_results(loggers, SUMMARY, {"sheet": picture}, PREDICTIONS)
    finish_loggers(loggers, failed=False)
    (table,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/media/table/test/predictions*.json")
    assert json.loads(table.read_text())["data"] == [[1, 0, 0.25, 3, 2], [2, 1, 0.75, 4, 0]]
    assert not (tmp_path / "home").exists()
    content = written(tmp_path / "run", b"test/predictions")
    assert b"test/predictions" in content
    assert b"test/auroc_low" in content
    for private in (b"Jane", b"Joe", b"archive", str(tmp_path).encode()):
        assert private not in content
