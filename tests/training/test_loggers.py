import json
import os
import socket
import subprocess
import sys
import time

import pytest
import wandb as library
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lemlight.errors import LemlightError
from lemlight.training import logging as module
from lemlight.training.logging import build_loggers, finish_loggers
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


def tensorboard(folder):
    return {"tensorboard": part_of("logger", "tensorboard")["tensorboard"] | {"save_dir": str(folder / "logs")}}


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


def test_disabled_or_none_there_is_no_logger(tmp_path):
    assert build_loggers({}, CONFIG) == []
    assert build_loggers(wandb(tmp_path, **(WANDB | {"mode": "disabled"})), CONFIG) == []
    finish_loggers([], failed=True)


def test_tensorboard_gets_the_curves(tiny, tmp_path):
    loggers = build_loggers(tensorboard(tmp_path), CONFIG)
    trainer = tiny.make_trainer(tmp_path, epochs=2, loggers=loggers)
    tiny.fit(trainer, tiny.make_module(), tiny.make_data(), None)
    finish_loggers(loggers, failed=False)
    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard")).Reload()
    assert len(events.Scalars("val/loss")) == 2
    assert [round(event.value, 2) for event in events.Scalars("lambda")][-1] == 1.0
    assert not any(PATIENT.encode() in content for content in files_of(tmp_path).values())


def test_without_tensorboard_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(LemlightError, match=r"pip install 'lemlight\[tensorboard\]'"):
        build_loggers(tensorboard(tmp_path), {})
