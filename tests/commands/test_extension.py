"""What a user brings from outside: the code of the pages "write your own" as it stands there, by command."""

import json
import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.layouts.folder import write_folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "own").glob("*.md"))}
BLOCK = re.compile(r"```(?:python|yaml)\n# (own/__init__\.py|conf/[\w/]+\.yaml)\n(.*?)```", re.DOTALL)
FAST = ["debug=fast", "trainer.check_val_every_n_epoch=1"]
RMSPROP = "_target_: torch.optim.RMSprop\n_partial_: true\nlr_backbone: 1.0e-4\nlr_head: 1.0e-3\nalpha: 0.95\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's folder with everything that the pages show, images, two callbacks at once and an optimizer of torch."""
    folder = tmp_path_factory.mktemp("mine")
    for page, text in PAGES.items():
        for name, content in BLOCK.findall(text):
            write(folder / (name if name.endswith(".yaml") else f"own/{page}.py"), content)
    modules = sorted(path.stem for path in (folder / "own").glob("*.py"))
    write(folder / "own" / "__init__.py", "".join(f"from own.{name} import *\n" for name in modules))
    count = (folder / "conf" / "callbacks" / "count.yaml").read_text()
    write(folder / "conf" / "callbacks" / "both.yaml", count.replace("[default]", "[ap]"))
    write(folder / "conf" / "optimizer" / "rmsprop.yaml", RMSPROP)
    table = write_folder(folder / "images", patients=12)
    table = table.rename(columns={"path": "file", "patient": "woman", "laterality": "side"})
    table["cancer"] = table.pop("label").map({1: "yes", 0: "no"})
    table.assign(projection="CC").to_csv(folder / "images" / "mine.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", f"{folder}:{ROOT / 'src'}")  # of the jobs of a sweep
        yield folder
    forget()


@pytest.fixture(scope="module")
def conf(mine):
    return f"--config-dir={mine / 'conf'}"


@pytest.fixture(scope="module")
def own(lemlight_run, mine, conf):
    """A run with an own part of every kind, and some arguments of Lightning's Trainer."""
    parts = ["pooling=topmean", "backbone=tiny", "loss=focal", "optimizer=rmsprop", "callbacks=both", "logger=second"]
    parts += ["localization/methods=mine", "localization.method=edges", "dataset=mine"]
    trainer = ["trainer.profiler=simple", "trainer.enable_model_summary=true", "+trainer.max_time=00:00:10:00"]
    data = [f"dataset.root={mine / 'images'}", f"store={mine / 'store'}"]
    return lemlight_run("train", conf, *parts, *data, *trainer, *FAST).folder


@pytest.fixture(scope="module")
def checkpoint(own):
    return f"checkpoint={own / 'checkpoints' / 'best.ckpt'}"


def test_every_kind_has_its_page_and_the_index_names_it():
    kinds = {"pooling", "backbone", "loss", "dataset", "localization", "callback", "metric"}
    assert set(PAGES) == kinds | {"index"}
    assert all(f"({kind}.md)" in PAGES["index"] for kind in kinds)


def test_the_parts_of_all_pages_train_at_once(own, mine):
    assert int((own / "batches.txt").read_text()) > 0
    assert list(own.rglob("second/**/*.csv"))
    assert "val/ap" in pd.read_csv(own / "logs" / "metrics.csv")
    assert json.loads((own / "metrics.json").read_text())["localization"]["method"] == "edges"
    predictions = pd.read_csv(own / "predictions.csv")
    assert predictions["patient_id"].str.startswith("patient ").all()
    write(mine / "interval.py", re.findall(r"```python\n(import pandas.*?)```", PAGES["metric"], re.DOTALL)[0])
    value, low, high = runpy.run_path(str(mine / "interval.py"))["average_precision"](predictions)
    assert 0 <= low <= value <= high <= 1


def test_an_own_pooling_stands_in_the_table_of_a_sweep_under_its_own_name(lemlight_run, conf, phantom, tmp_path):
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    lemlight_run("train", conf, "-m", *phantom, "pooling=choice(topmean)", "backbone=tiny", *FAST, sweep)
    assert pd.read_csv(tmp_path / "sweep" / "table.csv")["pooling"].tolist() == ["topmean"]


def test_an_own_part_in_a_checkpoint_is_imported_only_where_its_module_is_trusted(
    lemlight_run, refused, checkpoint, mine, dicoms
):
    for command, more in (
        ("evaluate", [f"store={mine / 'store'}"]),
        ("localize", [f"input={dicoms[0]}"]),
        ("export", []),
    ):
        forget()
        assert "trust=[own]" in refused(command, checkpoint, *more)
        assert "own" not in sys.modules
        lemlight_run(command, checkpoint, *more, "trust=[own]")


def test_a_run_with_own_parts_goes_on_where_they_are_trusted(lemlight_run, refused, own, conf, mine):
    resume = [f"resume={own / 'checkpoints' / 'last.ckpt'}", f"store={mine / 'store'}", "trainer.max_epochs=2"]
    assert "trust=[own]" in refused("train", conf, *resume)
    done = lemlight_run("train", conf, *resume, "trust=[own]")
    assert len(pd.read_csv(done.folder / "logs" / "metrics.csv")) == 2


@pytest.mark.parametrize(("wrong", "named"), [("+pooling.kk=3", "pooling.kk"), ("pooling.k=many", "pooling.k=many")])
def test_a_wrong_argument_of_an_own_class_is_refused_like_one_of_ours(refused, conf, wrong, named):
    assert named in refused("train", conf, "pooling=topmean", wrong)
