"""Sweeps that are told to end: they do at once, in all of their processes, and the same command can go on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def state(job):
    return json.loads((job / "state.json").read_text())


def wait_for(condition, process=None, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until and (process is None or process.poll() is None) and not condition():
        time.sleep(0.05)
    return condition()


def processes_of(group):
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [(signal.SIGINT, os.kill, 130), (signal.SIGTERM, os.kill, 143), (signal.SIGTERM, os.killpg, 143)],
    ids=["interrupted", "told to end", "told to end with its readers"],
)
def test_an_interruption_ends_the_sweep_and_leaves_the_job_unfinished(
    number, send, code, folder_data, tiny_overrides, own_environment, tmp_path
):
    call = [sys.executable, "-m", "lemlight.train", "-m", *tiny_overrides, *folder_data, "workers=2"]
    call += ["trainer.max_epochs=500", "pooling=gap,lem", "hydra.sweep.dir=sweep"]
    process = subprocess.Popen(
        call,
        cwd=tmp_path,
        env=own_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for what runs behind it
    )
    log, until = tmp_path / "sweep" / "pooling=gap" / "logs" / "metrics.csv", time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and not log.is_file():
        time.sleep(0.005)
    send(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said.decode()
    assert state(tmp_path / "sweep" / "pooling=gap")["state"] == "running"
    assert not (tmp_path / "sweep" / "pooling=lem").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_of_joblib_end_with_their_sweep(number, folder_data, tiny_overrides, own_environment, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    call = [sys.executable, "-m", "lemlight.train", "-m", *tiny_overrides, *folder_data]
    call += ["trainer.max_epochs=500", "pooling=gap,lem", "hydra.sweep.dir=sweep"]
    call += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    with (tmp_path / "terminal.txt").open("w") as terminal:
        process = subprocess.Popen(
            call, cwd=tmp_path, env=own_environment, stdout=terminal, stderr=terminal, start_new_session=True
        )
    try:
        logs = [tmp_path / "sweep" / f"pooling={name}" / "logs" / "metrics.csv" for name in ("gap", "lem")]
        assert wait_for(lambda: all(log.is_file() for log in logs), process), (tmp_path / "terminal.txt").read_text()
        process.send_signal(number)
        assert process.wait(timeout=60) == -number
        assert wait_for(lambda: not processes_of(process.pid), seconds=60), processes_of(process.pid)
    finally:
        if processes_of(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert [state(log.parents[1])["state"] for log in logs] == ["running", "running"]
