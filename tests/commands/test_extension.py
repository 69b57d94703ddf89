"""What a user brings from outside (tests/extension: plain torch and pandas, one YAML file a part), by command."""

import shutil
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
        patch.setenv("PYTHONPATH", f"{OUTSIDE}:{Path(__file__).parents[2] / 'src'}")  # of the jobs of a sweep
        yield
    sys.modules.pop("own", None)


@pytest.fixture(scope="module")
def own(lemlight_run, phantom):
    parts = ["pooling=topmean", "backbone=tiny", "loss=focal", "optimizer=rmsprop", "callbacks=count", "logger=second"]
    return lemlight_run("train", CONF, *phantom, *parts, *FAST).folder


@pytest.fixture(scope="module")
def checkpoint(own):
    return f"checkpoint={own / 'checkpoints' / 'best.ckpt'}"


def test_own_pooling_backbone_loss_optimizer_callback_and_logger_train(own):
    assert int((own / "batches.txt").read_text()) > 0
    assert list(own.rglob("*second*/**/*.csv"))


def test_an_own_pooling_stands_beside_the_built_in_ones_of_a_sweep_under_its_own_name(lemlight_run, phantom, tmp_path):
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    lemlight_run("train", CONF, "-m", *phantom, "pooling=topmean,lem", "backbone=tiny", *FAST, sweep)
    assert set(pd.read_csv(tmp_path / "sweep" / "table.csv")["pooling"]) == {"topmean", "lem"}


def test_an_own_part_in_a_checkpoint_is_imported_only_where_its_module_is_trusted(
    lemlight_run, refused, checkpoint, phantom
):
    image = next(Path(phantom[1].partition("=")[2]).rglob("*.dcm"))
    for command, more in (("evaluate", phantom[:1]), ("localize", [f"input={image}"]), ("export", [])):
        sys.modules.pop("own", None)
        assert "trust=[own]" in refused(command, checkpoint, *more)
        assert "own" not in sys.modules
        lemlight_run(command, checkpoint, *more, "trust=[own]")


def test_a_run_with_own_parts_goes_on_where_they_are_trusted(lemlight_run, refused, own, phantom):
    resume = [f"resume={own / 'checkpoints' / 'last.ckpt'}", *phantom[:1], "trainer.max_epochs=2"]
    assert "trust=[own]" in refused("train", CONF, *resume)
    done = lemlight_run("train", CONF, *resume, "trust=[own]")
    assert len(pd.read_csv(done.folder / "logs" / "metrics.csv")) == 2


@pytest.mark.parametrize(("wrong", "named"), [("+pooling.kk=3", "pooling.kk"), ("pooling.k=many", "pooling.k=many")])
def test_a_wrong_argument_of_an_own_class_is_refused_like_one_of_ours(refused, wrong, named):
    assert named in refused("train", CONF, "pooling=topmean", wrong)


def test_an_own_data_set_is_trained_on_with_any_argument_of_the_trainer(lemlight_run, phantom, own, tmp_path):
    files = sorted(Path(phantom[1].partition("=")[2]).rglob("*.dcm"))
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / f"{number:03}.dcm")
    rows = [(f"{n:03}.dcm", f"w{n // 2}", "yes" if n // 2 % 2 else "no", "L", "CC") for n in range(len(files))]
    columns = ["file", "woman", "cancer", "side", "projection"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "mine.csv", index=False)
    data = ["dataset=mine", f"dataset.root={tmp_path}", f"store={tmp_path / 'store'}", "backbone=tiny"]
    more = ["trainer.profiler=simple", "trainer.enable_model_summary=true", "+trainer.max_time=00:00:10:00"]
    done = lemlight_run("train", CONF, *data, *more, *FAST)
    assert pd.read_csv(done.folder / "predictions.csv")["patient_id"].str.startswith("w").all()
