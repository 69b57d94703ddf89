"""The notebooks run from their first cell to their last, as a user's kernel runs them."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"


@pytest.mark.parametrize("name", ["own_data", "quick_start"])
def test_a_notebook_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs are not committed"
    names = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"{name}, code cell {number}", "exec"), names)
    said = capsys.readouterr().out
    if name == "own_data":
        assert "label" in said
        assert names["loss"].item() < 0.69
        assert "0 left out" in said
    else:
        assert len(names["views"]) == 2
        assert "Research only" in said
