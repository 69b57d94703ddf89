import signal
import subprocess
import sys
import time

import pandas as pd
import torch
from omegaconf import OmegaConf


def weights(folder):
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


def kill_after_two_epochs(call, cwd, environment, log):
    with (cwd / "terminal.txt").open("w") as terminal:
        process = subprocess.Popen(call, cwd=cwd, env=environment, stdout=terminal, stderr=terminal)
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            if log.is_file() and len(log.read_text().splitlines()) > 2:
                break
            time.sleep(0.005)
        process.kill()
        return process.wait()


def test_a_killed_training_that_is_resumed_gives_the_same_numbers(
    lemlight_run, folder_data, own_environment, tiny_overrides, tmp_path
):
    wanted = [*folder_data, "trainer.max_epochs=5", "pooling=lem"]
    whole = lemlight_run("train", *wanted).folder
    killed = tmp_path / "run"
    call = [sys.executable, "-m", "lemlight.train", *tiny_overrides, *wanted, f"hydra.run.dir={killed}"]
    code = kill_after_two_epochs(call, tmp_path, own_environment, killed / "logs" / "metrics.csv")
    assert code == -signal.SIGKILL, (tmp_path / "terminal.txt").read_text()
    assert 2 <= len(pd.read_csv(killed / "logs" / "metrics.csv")) < 5
    assert not (killed / "metrics.json").exists()
    last = killed / "checkpoints" / "last.ckpt"
    (last.parent / ".best.ckpt.1.part").write_bytes(b"as a kill in the middle of writing leaves it")
    lemlight_run("train", *wanted, f"resume={last}", folder=killed)
    for name in ("logs/metrics.csv", "predictions.csv", "metrics.json"):
        assert (killed / name).read_text() == (whole / name).read_text()
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert sorted(path.name for path in last.parent.glob("*")) == ["best.ckpt", "last.ckpt"]


def test_a_resumed_run_keeps_its_configuration_and_names_what_would_change_it(
    lemlight_run, refused, folder_data, tmp_path
):
    run = tmp_path / "run"
    wanted = [*folder_data, "pooling=lem", "seed=3"]
    lemlight_run("train", *wanted, "trainer.max_epochs=2", folder=run)
    resume = f"resume={run / 'checkpoints' / 'last.ckpt'}"
    before = (run / "metrics.json").read_text()
    said = refused(
        "train", *wanted[2:], resume, "dataset.split.seed=5", "optimizer=sgd", "loss.beta=1", "optimizer.lr_head=0.5",
        "trainer.max_epochs=3", *folder_data, folder=run,
    )  # fmt: skip
    for part in ("dataset.split.seed=5: the run has dataset.split.seed=0", "optimizer=sgd: the run has optimizer=adam",
                 "loss.beta=1", "optimizer.lr_head=0.5"):  # fmt: skip
        assert part in said
    assert (run / "metrics.json").read_text() == before
    # nothing but more epochs: all else is that of the checkpoint, not the default of this command
    again = tmp_path / "again"
    store = next(word for word in folder_data if word.startswith("store="))
    lemlight_run("train", resume, store, "trainer.max_epochs=3", folder=again)
    config = OmegaConf.load(again / "config.yaml")
    assert (config.seed, config.trainer.max_epochs, config.choices.dataset) == (3, 3, "folder")
    assert len(pd.read_csv(again / "logs" / "metrics.csv")) == 3
