"""What a user brings from outside: tests/extension is plain torch and pandas, one YAML file a part, and a script."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

OUTSIDE = Path(__file__).parents[1] / "extension"
CONF = f"--config-dir={OUTSIDE / 'conf'}"
FAST = ["debug=fast", "trainer.check_val_every_n_epoch=1"]


@pytest.fixture(scope="module", autouse=True)
def _python_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(OUTSIDE))
        yield
    sys.modules.pop("own", None)


@pytest.fixture(scope="module")
def own(lemlight_run, phantom):
    parts = ["pooling=topmean", "backbone=tiny", "loss=focal", "optimizer=rmsprop", "callbacks=count", "logger=second"]
    return lemlight_run("train", CONF, *phantom, *parts, *FAST, "level=breast").folder


@pytest.fixture(scope="module")
def checkpoint(own):
    return f"checkpoint={own / 'checkpoints' / 'best.ckpt'}"


def test_all_that_a_user_brings_works_with_the_real_commands(tmp_path):
    python = (
        tmp_path / "python"
    )  # full-size images, as it takes them by itself, are minutes: bash check.sh PYTHON FOLDER
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{OUTSIDE / "small.py"}" "$@"\n')
    python.chmod(0o755)
    command = ["bash", str(OUTSIDE / "check.sh"), str(python), str(tmp_path / "user")]
    source = str(Path(__file__).parents[2] / "src")
    environment = os.environ | {"PYTHONPATH": source}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all of it works from outside"


def test_an_own_part_in_a_checkpoint_is_imported_only_where_its_module_is_trusted(
    lemlight_run, refused, checkpoint, phantom
):
    image = next(Path(phantom[1].partition("=")[2]).rglob("*.dcm"))
    for command, more in (
        ("evaluate", ["dataset=phantom", *phantom]),
        ("localize", [f"input={image}"]),
        ("export", []),
    ):
        sys.modules.pop("own", None)
        assert "trust=[own]" in refused(command, checkpoint, *more)
        assert "own" not in sys.modules
        lemlight_run(command, checkpoint, *more, "trust=[own]")


def test_an_own_pooling_pools_the_views_of_a_breast_together(own, checkpoint, phantom, lemlight_run):
    done = lemlight_run("evaluate", checkpoint, "dataset=phantom", *phantom, "trust=[own]")
    for folder in (own, done.folder):
        images = pd.read_csv(folder / "predictions.csv").set_index(["patient_id", "laterality"])
        breasts = pd.read_csv(folder / "predictions_breast.csv").set_index(["patient_id", "laterality"])
        assert (images["breast_probability"] == breasts["probability"].reindex(images.index)).all()
        assert images.groupby(level=[0, 1])["probability"].nunique().max() > 1
        assert "judged all views of one together" in (folder / "report.html").read_text()


def test_a_run_with_own_parts_goes_on_where_they_are_trusted(lemlight_run, refused, own, phantom):
    resume = [f"resume={own / 'checkpoints' / 'last.ckpt'}", *phantom, "trainer.max_epochs=2"]
    assert "trust=[own]" in refused("train", CONF, *resume)
    done = lemlight_run("train", CONF, *resume, "trust=[own]")
    assert len(pd.read_csv(done.folder / "logs" / "metrics.csv")) == 2
