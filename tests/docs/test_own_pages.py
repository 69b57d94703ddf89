"""The pages "write your own": their code, as it stands there, with the real commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.layouts.folder import write_folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "own").glob("*.md"))
BLOCK = re.compile(r"```(?:python|yaml)\n# (own/__init__\.py|conf/[\w/]+\.yaml)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's folder with everything that the pages show."""
    folder = tmp_path_factory.mktemp("mine")
    for page in PAGES:
        for name, content in BLOCK.findall(page.read_text(encoding="utf-8")):
            path = folder / (name if name.endswith(".yaml") else f"own/{page.stem}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    modules = sorted(path.stem for path in (folder / "own").glob("*.py"))
    (folder / "own" / "__init__.py").write_text("".join(f"from own.{name} import *\n" for name in modules))
    return folder


def lemlight(mine, command, *words):
    environment = {"PYTHONPATH": f"{mine}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    call = [sys.executable, "-m", f"lemlight.{command}", "--config-dir", str(mine / "conf"), *words]
    done = subprocess.run(call, cwd=mine, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def test_every_kind_has_its_page_and_the_index_names_it():
    kinds = {"pooling", "backbone", "loss", "dataset", "localization", "callback", "metric"}
    assert {page.stem for page in PAGES} == kinds | {"index"}
    index = (ROOT / "docs" / "own" / "index.md").read_text()
    assert all(f"({kind}.md)" in index for kind in kinds)


def test_the_code_of_all_pages_trains_at_once(mine):
    write_folder(mine / "images", patients=12)
    table = pd.read_csv(mine / "images" / "images.csv")
    names = {"path": "file", "patient": "woman", "laterality": "side"}
    cancer = table["label"].map({1: "yes", 0: "no"})
    table.rename(columns=names).assign(cancer=cancer, projection="CC").to_csv(mine / "images" / "mine.csv", index=False)
    combined = (mine / "conf" / "callbacks" / "count.yaml").read_text().replace("[default]", "[ap]")
    (mine / "conf" / "callbacks" / "both.yaml").write_text(combined)
    lemlight(
        mine, "train", "pooling=topmean", "backbone=tiny", "loss=focal", "dataset=mine", "dataset.root=images",
        "callbacks=both", "logger=second", "localization/methods=mine", "localization.method=edges", "debug=fast",
        "trainer=cpu", "hydra.run.dir=run", "prepare_workers=1", "dataset.prepare.height=96",
        "dataset.prepare.width=64",
    )  # fmt: skip
    run = mine / "run"
    assert int((run / "batches.txt").read_text()) == 2
    assert "val/ap" in pd.read_csv(run / "logs" / "metrics.csv")
    assert list(run.rglob("second/**/metrics.csv"))
    assert json.loads((run / "metrics.json").read_text())["localization"]["method"] == "edges"
    code = "import own, pandas as pd; print(*own.average_precision(pd.read_csv('run/predictions.csv')))"
    page = next(page for page in PAGES if page.stem == "metric").read_text()
    function = re.findall(r"```python\n(import pandas.*?)```", page, re.DOTALL)[0]
    (mine / "own" / "interval.py").write_text(function)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("own,", "own.interval as own,")],
        cwd=mine, env={"PYTHONPATH": f"{mine}:{ROOT / 'src'}"}, capture_output=True, text=True,
    )  # fmt: skip
    value, low, high = map(float, done.stdout.split())
    assert 0 <= low <= value <= high <= 1
