import os
import signal
from contextlib import contextmanager

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from lemlight.config.conf_dir import conf_dir
from lemlight.errors import LemlightError
from lemlight.sweeps import processes as tasks
from lemlight.sweeps.jobs import run_job
from lemlight.sweeps.processes import own_processes
from lemlight.sweeps.table import read_state


@pytest.fixture
def slurm(monkeypatch):
    """Be the first of two tasks of a job of Slurm."""
    for name, value in {"NTASKS": "2", "PROCID": "0", "JOB_ID": "7", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    return monkeypatch


@pytest.fixture
def job(tmp_path):
    """The config of a job whose folder is tmp_path."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", ["pooling=gap", f"output={tmp_path}"], return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(tmp_path)
        config.hydra.runtime.config_sources = []
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = config
    yield OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    HydraConfig.instance().cfg = before


@contextmanager
def second(slurm):
    slurm.setenv("SLURM_PROCID", "1")
    yield
    slurm.setenv("SLURM_PROCID", "0")


def test_the_second_task_trains_from_the_checkpoint_of_the_first_and_keeps_no_account(slurm, job, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    resumed = []

    def train(config):
        resumed.append(config.resume)
        last.touch()
        if len(resumed) != 2:
            raise RuntimeError("out of luck")

    run_job(job, train)
    with second(slurm), FileLock(tmp_path / ".lock"):  # that of the first task
        run_job(job, train)
    assert resumed == [None]  # the first one has failed: nobody trains
    slurm.setenv("SLURM_RESTART_COUNT", "1")
    run_job(job, train)
    before = (tmp_path / "state.json").read_text()
    tasks.announce(tmp_path, train=True, resume=str(last))
    with second(slurm), FileLock(tmp_path / ".lock"):
        assert run_job(job, train) is None  # its failure is the first one's to tell
    assert resumed == [None, str(last), str(last)]
    assert (tmp_path / "state.json").read_text() == before


def test_the_second_task_does_nothing_where_the_first_one_has_nothing_to_do(slurm, job, tmp_path):
    with FileLock(tmp_path / ".lock"):  # of another start of the same sweep
        run_job(job, None)
    with second(slurm):
        assert run_job(job, None) is None
    assert read_state(tmp_path) is None


def test_a_plan_of_an_earlier_start_is_none(slurm, tmp_path):
    tasks.announce(tmp_path, train=False)
    slurm.setenv("SLURM_RESTART_COUNT", "1")
    with second(slurm), pytest.raises(LemlightError, match="has not begun"):
        tasks.wait_for_plan(tmp_path, longest=0)


def test_only_a_job_of_several_tasks_has_followers(slurm, tmp_path):
    with second(slurm):
        assert not tasks.leads()
        slurm.delenv("SUBMITIT_EXECUTOR")  # Ray inside a job of Slurm: its jobs have one task each
        assert tasks.leads()
    tasks.announce(tmp_path, train=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "hidden"), [("1", True), ("2", False)])
def test_lightning_sees_slurm_only_where_slurm_starts_its_processes(count, hidden, slurm, job):
    slurm.setenv("SLURM_NTASKS", count)
    with own_processes("lemlight.train", resume=None):
        assert ("SLURM_NTASKS" not in os.environ) is hidden
    assert os.environ["SLURM_NTASKS"] == count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_what_fails_after_slurms_signal_is_unfinished_and_no_failure(number, slurm, job, tmp_path):
    def train(config):
        with tasks.watching_signals():
            os.kill(os.getpid(), number)
            raise RuntimeError("a worker was killed")

    before = signal.signal(number, lambda *_: None)
    try:
        if number == signal.SIGTERM:
            with pytest.raises(SystemExit):
                run_job(job, train)
        else:
            assert run_job(job, train) is None
    finally:
        signal.signal(number, before)
    assert read_state(tmp_path).state == "running"


def test_a_forked_process_does_not_act_on_slurms_signal(slurm, tmp_path):
    before = signal.signal(signal.SIGUSR2, lambda *_: (tmp_path / str(os.getpid())).touch())
    try:
        with tasks.watching_signals():
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGUSR2)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert not tasks.told_by_slurm()
            os.kill(os.getpid(), signal.SIGUSR2)
            assert tasks.told_by_slurm(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]
