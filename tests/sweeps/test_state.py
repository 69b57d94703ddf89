import signal
import subprocess
import sys

from filelock import FileLock

from lemlight.sweeps.table import JobState, differences, read_state


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = JobState("running", ["seed=0"], {"seed": 0, "names": ["a", "b"]})
    state.write(tmp_path)
    assert read_state(tmp_path) == state
    state.done(0.5).write(tmp_path)
    found = read_state(tmp_path)
    assert (found.state, found.result, found.started) == ("done", 0.5, state.started)
    assert found.ended >= found.started
    failed = found.failed("no room")
    assert (failed.state, failed.error, failed.result) == ("failed", "no room", None)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_no_state_and_a_broken_state_are_none(tmp_path):
    assert read_state(tmp_path) is None
    for text in ("", "{", "[]", '{"state": "done", "unknown": 1}'):
        (tmp_path / "state.json").write_text(text)
        assert read_state(tmp_path) is None


def test_differences_are_those_that_change_a_figure():
    before = {"seed": 0, "workers": 2, "trainer": {"max_epochs": 3}, "callbacks": {"progress_bar": True}, "old": 1}
    wanted = {"seed": 0, "workers": 0, "trainer": {"max_epochs": 4}, "callbacks": {"progress_bar": False}, "new": None}
    assert differences(before, wanted) == ["new", "old", "trainer.max_epochs"]
    assert differences(before, before) == []
    logged = {"logger": {"wandb": {"mode": "online"}}}
    assert differences(logged, {"logger": {"wandb": None}}) == []


HOLD_AND_DIE = """
import os, signal, sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire(blocking=False)
if os.fork() == 0:
    sys.stdin.read()  # a worker that outlives its parent
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_job_frees_its_lock_although_a_worker_lives_on(tmp_path):
    call = [sys.executable, "-c", HOLD_AND_DIE, str(tmp_path / ".lock")]
    process = subprocess.Popen(call, stdin=subprocess.PIPE)
    assert process.wait(30) == -signal.SIGKILL
    with FileLock(tmp_path / ".lock", timeout=1):
        process.stdin.close()  # only now may the worker end
