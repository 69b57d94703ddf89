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
    wanted = [*folder_data, "trainer.max_epochs=4"]
    whole = lemlight_run("train", *wanted).folder
    killed = tmp_path / "run"
    call = [sys.executable, "-m", "lemlight.train", *tiny_overrides, *wanted, f"hydra.run.dir={killed}"]
    code = kill_after_two_epochs(call, tmp_path, own_environment, killed / "logs" / "metrics.csv")
    assert code == -signal.SIGKILL, (tmp_path / "terminal.txt").read_text()
    assert 2 <= len(pd.read_csv(killed / "logs" / "metrics.csv")) < 4
    assert not (killed / "metrics.json").exists()
    last = killed / "checkpoints" / "last.ckpt"
    (last.parent / ".best-1.ckpt").write_bytes(b"as a kill in the middle of writing leaves it")
    lemlight_run("train", *wanted, f"resume={last}", folder=killed)
    for name in ("logs/metrics.csv", "predictions.csv", "metrics.json"):
        assert (killed / name).read_text() == (whole / name).read_text()
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert sorted(path.name for path in last.parent.glob("*")) == ["best.ckpt", "last.ckpt"]


def test_a_resumed_run_keeps_its_configuration_and_names_what_would_change_it(lemlight_run, refused, trained, phantom):
    resume = [f"resume={trained.folder / 'checkpoints' / 'last.ckpt'}", *phantom[:1], "trainer.max_epochs=3"]
    wrong = ["dataset.split.seed=5", "optimizer=sgd", "loss.beta=1", "optimizer.lr_head=0.5"]
    said = refused("train", *resume, *wrong)
    for part in (*wrong, "the run has dataset.split.seed=0", "the run has optimizer=adam"):
        assert part in said
    # nothing but more epochs: all else is that of the checkpoint, not the default of this command
    again = lemlight_run("train", *resume).folder
    config = OmegaConf.load(again / "config.yaml")
    assert (config.threshold, config.trainer.max_epochs, config.choices.dataset) == (0.4, 3, "phantom")
    assert len(pd.read_csv(again / "logs" / "metrics.csv")) == 3
