"""The account that is kept of a job, with trainings that do not run; real ones are in tests/commands/test_sweeps.py."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from lemlight.errors import LemlightError
from lemlight.sweeps import jobs
from lemlight.sweeps.jobs import leaving_outcome, run_job, run_to_its_end
from lemlight.sweeps.names import Sweep
from lemlight.sweeps.state import read_state
from tests.sweeps.observed import processes_of, wait_for


def test_a_training_is_the_same_command_as_a_single_run_in_the_folder_of_the_job(job, trainings, tmp_path):
    assert run_job(job) == 0.5
    ((command, environment),) = trainings
    assert command == [
        *[sys.executable, "-m", "lemlight.train", "--config-dir", "/mine"],
        *["pooling=gap", "seed=1", f"output={tmp_path / 'job'}"],
        *["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra.searchpath=[pkg://mine]"],
        *[f"hydra.run.dir='{tmp_path / 'job'}'", "hydra.mode=RUN"],
    ]
    assert "HYDRA_FULL_ERROR" not in environment
    state = read_state(tmp_path / "job")
    assert (state.state, state.result, state.config["seed"]) == ("done", 0.5, 1)
    assert state.ended >= state.started


def test_a_training_knows_the_sweep_that_it_belongs_to(job, trainings, monkeypatch):
    assert Sweep.of_this_process() is None
    run_job(job)
    monkeypatch.setenv("LEMLIGHT_SWEEP", trainings[0][1]["LEMLIGHT_SWEEP"])
    assert Sweep.of_this_process() == Sweep([], ["pooling"])


def test_a_job_that_is_done_or_runs_in_another_process_is_skipped(job, trainings, tmp_path, capsys):
    with FileLock(tmp_path / "job" / ".lock"):
        assert run_job(job) is None
    assert "runs in another process, skipped" in capsys.readouterr().out
    assert trainings == []
    run_job(job)
    assert run_job(job) == 0.5
    assert len(trainings) == 1
    assert "job: done before, skipped" in capsys.readouterr().out
    (tmp_path / "job" / "metrics.json").unlink()
    run_job(job)
    assert len(trainings) == 2


@pytest.mark.parametrize(
    ("code", "leaves", "sentence"),
    [
        (2, {"error": "RuntimeError: out of luck"}, "RuntimeError: out of luck"),
        (1, None, "the training ended with exit code 1: what it said stands above"),
        (0, None, "the training ended with exit code 0: what it said stands above"),
        (-9, None, "the training was ended by SIGKILL (out of memory?)"),
    ],
)
def test_a_training_that_fails_fails_its_job_with_one_sentence_and_goes_on(
    code, leaves, sentence, job, trainings, tmp_path
):
    trainings.code, trainings.leaves = code, leaves
    assert run_job(job) is None
    state = read_state(tmp_path / "job")
    assert (state.state, state.error, state.result) == ("failed", sentence, None)
    (tmp_path / "job" / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "job" / "checkpoints" / "last.ckpt").touch()
    trainings.code, trainings.leaves = 0, {"result": None}
    run_job(job)
    assert trainings[1][0][-1] == f"resume='{tmp_path / 'job' / 'checkpoints' / 'last.ckpt'}'"
    assert read_state(tmp_path / "job").state == "done"


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_job_unfinished(end, job, monkeypatch, tmp_path):
    def interrupted(*_):
        raise end

    monkeypatch.setattr(jobs, "run_to_its_end", interrupted)
    with pytest.raises(end):
        run_job(job)
    assert read_state(tmp_path / "job").state == "running"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 2, "its configuration has changed (seed), it runs anew"),
        ("version", "0.0.9", "it was run by lemlight 0.0.9, this is"),
    ],
)
def test_what_another_configuration_or_version_left_is_set_aside(key, value, said, job, trainings, tmp_path, capsys):
    run_job(job)
    folder = tmp_path / "job"
    state = json.loads((folder / "state.json").read_text())
    (state if key in state else state["config"])[key] = value
    (folder / "state.json").write_text(json.dumps(state))
    run_job(job)
    assert said in capsys.readouterr().err
    assert len(trainings) == 2
    assert not any(word.startswith("resume") for word in trainings[1][0])
    (kept,) = folder.glob("replaced/*/state.json")
    assert json.loads(kept.read_text()) == state
    assert kept.with_name("metrics.json").is_file()


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Be a process that was started for the job in tmp_path."""
    monkeypatch.setenv("LEMLIGHT_JOB", json.dumps({"parent": os.getppid(), "folder": str(tmp_path)}))
    return tmp_path


def test_a_training_leaves_its_result(started):
    assert leaving_outcome(lambda config: 0.5)(None) == 0.5
    assert json.loads((started / ".outcome.json").read_text()) == {"result": 0.5}
    assert leaving_outcome(len) is len  # the variable is gone: what a job starts itself is not to leave any


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(RuntimeError("out of luck"), "RuntimeError: out of luck"), (LemlightError("no images"), "no images")],
)
def test_a_training_leaves_its_error_and_where_it_came_from(started, error, sentence):
    def fails(config):
        raise error

    with pytest.raises(LemlightError, match=sentence):
        leaving_outcome(fails)(None)
    assert json.loads((started / ".outcome.json").read_text()) == {"error": sentence}
    assert "in fails" in (started / "error.txt").read_text()


PARENT = """
import os, sys
from lemlight.sweeps import jobs
jobs.GRACE = 0.2
with jobs._exit_on_sigterm():
    sys.exit(jobs.run_to_its_end([sys.executable, "-c", sys.argv[1]], os.environ))
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("at work", flush=True)
time.sleep(600)
"""
WATCHING = """
import os, time
from lemlight.sweeps import jobs
jobs.end_with(os.getppid())
print("at work", flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent():
    """Start a process that runs `child` to its end; it has a session of its own."""
    processes = []

    def parent(child):
        call = [sys.executable, "-c", PARENT, child]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(call, start_new_session=True, **pipes))
        assert processes[-1].stdout.readline() == "at work\n"
        return processes[-1]

    yield parent
    for process in processes:
        for left in processes_of(process.pid):
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_what_trains_ends_with_the_process_that_is_told_to(send, parent):
    process = parent(STUBBORN)
    send(process.pid, signal.SIGTERM)
    assert process.wait(30) == 143
    assert "told to end (SIGTERM)" in process.stderr.read()
    assert not processes_of(process.pid)


def test_what_trains_for_nobody_ends(parent):
    process = parent(WATCHING)
    process.kill()
    assert wait_for(lambda: not processes_of(process.pid), seconds=30)


def test_what_a_crash_leaves_behind_ends(tmp_path):
    crashes = """
import pathlib, subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(left.pid))
sys.exit(3)
"""
    assert run_to_its_end([sys.executable, "-c", crashes, str(tmp_path / "left")], os.environ) == 3
    left = (tmp_path / "left").read_text()
    assert wait_for(lambda: not Path(f"/proc/{left}").exists() or " Z " in Path(f"/proc/{left}/stat").read_text())
