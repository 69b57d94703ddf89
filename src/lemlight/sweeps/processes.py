"""Several devices in a job of a sweep: the processes of the other devices are single runs in the job's folder."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write
from torch import distributed

from lemlight.sweeps import ending, tasks

OBSERVER = "child-process-observer"
OF_SLURM = ("SLURM_NTASKS", "SLURM_PROCID")  # by these Lightning believes that Slurm starts its processes


@contextmanager
def own_processes(module: str, resume: str | None) -> Iterator[None]:
    """Let Lightning start further processes for this job, and leave nothing of them to the next one.

    Lightning starts them with this process's own command line. In a multirun that is the whole sweep, so every process
    would repeat all of it. Here the command line is the job's: `python -m module` with the job's overrides, in the
    job's folder, from the same checkpoint `resume`. Afterwards the command line, the environment and the number of
    threads are as before and the process group has ended: with what Lightning leaves behind, the next job with several
    devices would start none and train on a part of the images.

    In a job of Slurm with one task it is Lightning again that starts them, so Slurm is hidden from it; with several
    tasks (several machines) it is Slurm.
    """
    main = sys.modules["__main__"]
    before = HydraConfig.get().run.dir, sys.argv, main.__spec__, dict(os.environ), torch.get_num_threads()
    try:
        _set_run_folder(HydraConfig.get().runtime.output_dir)
        start_processes_as_usual()
        sys.argv = [sys.argv[0], *_command_line(resume)]
        main.__spec__ = find_spec(module)
        if not tasks.several():
            for name in OF_SLURM:
                os.environ.pop(name, None)
        with tasks.watching_signals():
            yield
    finally:
        _end_processes()
        folder, sys.argv, main.__spec__, environment, threads = before
        _set_run_folder(folder)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def _command_line(resume: str | None) -> list[str]:
    hydra = HydraConfig.get()
    quoted = str(resume).replace("'", "\\'")
    more = [f"resume='{quoted}'"] if resume else []
    configs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    words = [word for path in configs for word in ("--config-dir", path)]
    found = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
    return [*words, *hydra.overrides.task, *more, *found, "hydra.mode=RUN"]


def start_processes_as_usual() -> None:
    """Let a worker of joblib start processes as any other process does: by its own way they end at once.

    It hands them the name of a start method that only joblib knows. The worker itself is to end with the sweep.
    """
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method(None, force=True)
        ending.end_with_parent()


def _set_run_folder(folder: str) -> None:
    hydra = cast(DictConfig, HydraConfig.get())
    with read_write(hydra):
        hydra.run.dir = folder


def _end_processes() -> None:
    """Leave the process group, and stop the thread that would kill this process once another one has failed."""
    for thread in threading.enumerate():
        if thread.name == OBSERVER:
            for process in getattr(thread, "_child_processes", []):
                if distributed.is_initialized():  # an error left it open: the others wait for this process
                    process.kill()
            thread._child_processes = []  # type: ignore[attr-defined]  # of Lightning: it then ends by itself
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
