"""Loggers and what they are sent: figures and settings, nothing of a patient, a path, the machine or the user."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path, PureWindowsPath

import pytest
import wandb as library
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.settings import public_config
from lemlight.training.logging import build_loggers, finish_loggers, flat_figures, sent_config
from tests.parts import part_of

WANDB = {"project": "poolings", "group": "sweep", "name": "lem-0", "tags": ["phantom"], "mode": "offline"}
PATIENT = "P_00820"
CONFIG = {
    "choices": {"pooling": "poolingmarker"},
    "dataset": {"root": f"/archive/{PATIENT}", "csv": f"{PATIENT}.csv", "filter": [f"/archive/{PATIENT}/L.dcm"]},
    "resume": f"runs/{PATIENT}/last.ckpt",
}


def wandb(folder, **options):
    return {"wandb": part_of("logger", "wandb")["wandb"] | {"save_dir": str(folder)} | options}


@pytest.fixture(autouse=True)
def _no_wandb_left():
    yield
    assert library.run is None


def records(folder, kind):
    """What an offline run would send, read back with wandb's own command once its service has written the end."""
    [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", path]
    for _ in range(20):
        shown = subprocess.run(command, capture_output=True, text=True).stdout
        found = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
        if any(record["type"] == "exit" for record in found):
            return [record[kind] for record in found if record["type"] == kind]
        time.sleep(1)
    raise AssertionError(f"the run never ended: {shown}")


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def test_an_offline_run_holds_the_curves_and_nothing_of_patient_machine_or_user(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", f"dataset.root=/archive/{PATIENT}"])
    monkeypatch.setenv("LEMLIGHT_ROOT", f"/archive/{PATIENT}")
    monkeypatch.setattr(socket, "gethostname", lambda: "plantedhost")
    monkeypatch.setenv("USER", "planteduser")
    monkeypatch.setenv("LOGNAME", "planteduser")
    loggers = build_loggers(wandb(tmp_path, **WANDB), CONFIG)
    trainer = tiny.make_trainer(tmp_path, epochs=2, loggers=loggers)
    tiny.fit(trainer, tiny.make_module(), tiny.make_data(), None)
    finish_loggers(loggers, failed=False)

    [run, *_] = records(tmp_path, "run")
    assert not {"host", "git", "program"} & set(run)
    files = files_of(tmp_path / "wandb")
    assert not any(PATIENT.encode() in content for content in files.values())
    [sent] = [content for path, content in files.items() if path.suffix == ".wandb"]
    uploaded = b"".join([sent, *(content for path, content in files.items() if "files" in path.parts)])
    for kept in (b"poolingmarker", b"val/auroc", b"lambda", b"lr/head", b"lem-0", b"sweep"):
        assert kept in sent
    private = [str(tmp_path), os.getcwd(), sys.executable, sys.prefix, "train.py", "plantedhost", "planteduser"]
    for text in (*private, "git", "requirements"):
        assert text.encode() not in uploaded, text
    assert not any(path.name in ("wandb-metadata.json", "requirements.txt", "output.log") for path in files)


def test_the_next_job_of_a_sweep_opens_its_own_run_also_after_a_failure(tmp_path):
    runs = []
    for job, failed in (("first", True), ("second", False)):
        loggers = build_loggers(wandb(tmp_path / job, **(WANDB | {"name": job})), {"seed": 0})
        runs.append(loggers[0].experiment.id)
        finish_loggers(loggers, failed)
    assert runs[0] != runs[1]
    exits = [records(tmp_path / job, "exit") for job in ("first", "second")]
    assert [exit_record.get("exit_code", 0) for [exit_record] in exits] == [1, 0]


def test_a_resumed_job_goes_on_in_its_run(tmp_path):
    ids = set()
    for _ in range(2):
        loggers = build_loggers(wandb(tmp_path, **WANDB), {})
        ids.add(loggers[0].experiment.id)
        finish_loggers(loggers, failed=False)
    assert len(ids) == 1


def test_disabled_or_none_there_is_no_logger_and_another_object_is_refused(tmp_path):
    assert build_loggers(wandb(tmp_path, **(WANDB | {"mode": "disabled"})) | {"csv": None}, CONFIG) == []
    with pytest.raises(LemlightError, match=r"logger\.mine: torch.nn.Identity gives no .*Logger"):
        build_loggers({"mine": {"_target_": "torch.nn.Identity"}}, CONFIG)


def test_lists_become_text_and_the_loggers_are_left_out():
    config = {"labels": ["benign", "malignant"], "logger": {"wandb": WANDB}, "dataset": {"keep": [1, 2], "root": "/x"}}
    assert sent_config(config) == {"labels": "benign, malignant", "dataset": {"keep": "1, 2"}}


def test_every_defined_figure_is_a_column_with_its_bounds():
    summary = {"split": "test", "images": 82, "threshold": 0.5, "dsc": {"value": 0.4}, "interval": {"level": 0.95}}
    summary["sensitivity"] = {"value": None, "reason": "no malignant image"}
    summary["froc"] = {"mean": {"value": 0.6, "low": 0.5, "high": 0.7}, "curve": [[0, 0], [1, 1]]}
    summary["calibration"] = {"bins": [], "brier": {"value": 0.1}}
    summary["localization"] = {"method": "importance", "oracle": {"dsc": 0.5}}
    summary["localization_compared"] = {"cam": {"dsc": {"value": 0.3}, "cutoff": 0.5}}
    expected = {"dsc": 0.4, "froc": 0.6, "froc_low": 0.5, "froc_high": 0.7, "cam/dsc": 0.3, "dsc_oracle": 0.5}
    assert flat_figures(summary) == {f"test/{name}": value for name, value in (expected | {"images": 82}).items()}


SECRET = "/data/hospital/Jane Doe"


def test_paths_go_and_choices_stay():
    config = {
        "pooling": {"name": "lem", "k": 0.7},
        "dataset": {"name": "folder", "root": "relative/Jane Doe", "csv": "images.csv", "labels": ["benign", SECRET]},
        "backbone": {"name": "resnet18", "weights_file": "w.pt", "output_stride": 16},
        "callbacks": {"checkpoint": {"monitor": "val/loss", "mode": "min"}},
        "checkpoint": "outputs/best.ckpt",
        "output": "outputs",
        "store": "stores",
        "resume": None,
        "note": SECRET,
        "windows": "C:\\Jane Doe\\images",
        "home": "~/Jane Doe",
        "url": "file://host/Jane Doe",
        "object": Path("Jane Doe"),
        "mask_paths": ["Jane Doe"],
        "seeds": [0, 1],
        "lr": 2e-5,
    }
    assert public_config(config) == {
        "pooling": {"name": "lem", "k": 0.7},
        "dataset": {"name": "folder", "labels": ["benign"]},
        "backbone": {"name": "resnet18", "output_stride": 16},  # a number is no path
        "callbacks": {"checkpoint": {"monitor": "val/loss", "mode": "min"}},
        "seeds": [0, 1],
        "lr": 2e-5,
    }


SECRETS = st.sampled_from([SECRET, "C:\\Jane Doe", "~/Jane Doe", Path(SECRET), PureWindowsPath("Jane Doe")])
VALUES = st.recursive(
    st.one_of(st.integers(), st.text("abc"), st.none(), SECRETS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("xyz"), inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text("xyz"), VALUES, max_size=4))
def test_no_absolute_path_survives_at_any_depth(config):
    assert "Jane Doe" not in repr(public_config(config))
