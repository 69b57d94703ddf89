"""The real commands on tiny data: in this process for speed, or as `python -m lemlight.COMMAND` in one of their own."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch

from lemlight import download, evaluate, export, localize, prepare, report, train
from tests.layouts.folder import write_folder

COMMANDS = {"train": train, "evaluate": evaluate, "localize": localize}
COMMANDS |= {"prepare": prepare, "export": export, "report": report, "download": download}
MACHINE = ["workers=0", "prepare_workers=1", "bootstrap=100"]
SMALL = ["prepare_workers=1", "dataset.prepare.height=96", "dataset.prepare.width=64"]
TINY = [*MACHINE, *SMALL, "trainer=cpu", "trainer.max_epochs=1", "scheduler.warmup_epochs=0", "batch_size=8"]
TINY += ["trainer.enable_progress_bar=false", "examples=0"]
TINY += ["callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.mode=min"]
ALWAYS = {
    "train": TINY,
    "localize": ["workers=0"],
    "export": [],
    "prepare": SMALL,
    "report": ["resamples=1000"],
    "download": [],
}


@dataclass(frozen=True)
class Done:
    """What a command left on the terminal, and its run folder."""

    code: int
    out: str
    err: str
    folder: Path


def _here(command, arguments, cwd):
    """Run a command's main() with this command line, as `python -m` does."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = logging.root.handlers[:]
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    with (
        mock.patch.dict(os.environ, environment(), clear=True),
        mock.patch.object(sys, "argv", [f"lemlight.{command}", *arguments]),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            COMMANDS[command].main()
        except SystemExit as end:
            code = end.code
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(exact)
            for handler in set(logging.root.handlers) - set(before):
                handler.close()
            logging.root.handlers[:] = before
    return code, out.getvalue(), err.getvalue()


def environment():
    """The environment as a shell has it, without what an earlier command left in this process."""
    left = ("HYDRA_FULL_ERROR", "PL_")
    return {key: value for key, value in os.environ.items() if not key.startswith(left)} | {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def _own(command, arguments, cwd):
    call = [sys.executable, "-m", f"lemlight.{command}", *arguments]
    done = subprocess.run(call, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="session")
def lemlight_run(tmp_path_factory):
    """Run `train` or `evaluate` with a command line, in a run folder of its own unless `folder` names one."""

    def run(command, *arguments, folder=None, own_process=False, fails=False, cwd=None):
        folder = folder or tmp_path_factory.mktemp("run") / "out"
        start = _own if own_process else _here
        first = [word for word in arguments if word.startswith("-")]  # -m stands before all overrides
        rest = [word for word in arguments if not word.startswith("-")]
        arguments = [*first, *ALWAYS.get(command, MACHINE), f"hydra.run.dir={folder}", *rest]
        done = Done(*start(command, arguments, cwd or folder.parent), folder)
        assert "Traceback" not in done.out + done.err, done.err
        assert "leaked" not in done.err  # what nanobind says at exit of objects that nobody collects
        assert done.code == (2 if fails else 0), done.err
        if fails and "-m" not in first:  # in a multirun every job that fails says so
            assert done.err.count("lemlight: ") == 1, done.err
        return done

    return run


@pytest.fixture(scope="session")
def refused(lemlight_run):
    """Run a command that must fail as a user's mistake does (exit code 2, one message); the message."""

    def run(command, *arguments, **options):
        return lemlight_run(command, *arguments, fails=True, **options).err.partition("lemlight: ")[2]

    return run


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Overrides for a phantom of 12 patients that is drawn and prepared once."""
    root = tmp_path_factory.mktemp("phantom")
    sizes = ["dataset.patients=12", "dataset.scale=0.25"]
    return [f"store={root / 'store'}", f"dataset.root={root / 'images'}", *sizes]


@pytest.fixture(scope="session")
def dicoms(phantom):
    """Three files of the phantom."""
    return sorted(Path(phantom[1].partition("=")[2]).rglob("*.dcm"))[:3]


@pytest.fixture(scope="session")
def folder_data(tmp_path_factory):
    """Overrides for a folder of 32 images, and its root."""
    root = tmp_path_factory.mktemp("hospital")
    write_folder(root / "images")
    return [f"store={root / 'store'}", "dataset=folder", f"dataset.root={root / 'images'}"]


@pytest.fixture(scope="session")
def trained(lemlight_run, phantom):
    """Two epochs of LEM on the phantom, with pictures."""
    return lemlight_run("train", *phantom, "trainer.max_epochs=2", "examples=4", "threshold=0.4")


@pytest.fixture(scope="session")
def best(trained):
    """The override that names the best checkpoint of `trained`."""
    return f"checkpoint={trained.folder / 'checkpoints' / 'best.ckpt'}"


def pytest_collection_modifyitems(items):
    """Begin with the script of what a user brings: it takes minutes, and the other process works meanwhile."""
    items.sort(key=lambda item: "test_extension" not in item.nodeid)
