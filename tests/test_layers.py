"""The rooms of the house know one another one way only, as the README says."""

import ast
from pathlib import Path

import pytest

import lemlight

PACKAGE = Path(lemlight.__file__).parent
MAY_KNOW = {
    "models": (),
    "data": (),
    "metrics": (),
    "plots": ("metrics",),
    "localization": ("models", "data", "metrics"),
    "sweeps": ("metrics",),
    "training": ("models", "data", "metrics", "localization", "sweeps"),
    "reporting": ("models", "data", "metrics", "localization", "plots", "sweeps", "training"),
}
COMMANDS = ("train", "evaluate", "localize", "prepare", "report", "export", "download", "predictor")


def known(room):
    """The rooms and the files at the top that the files of a room import, at their head or within a function."""
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "lemlight":
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lemlight."):
                yield node.module.split(".")[1]


def test_every_room_has_its_place():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()} == set(MAY_KNOW)


@pytest.mark.parametrize("room", MAY_KNOW)
def test_a_room_knows_those_below_alone(room):
    assert set(known(room)).intersection((*MAY_KNOW, *COMMANDS)) <= {room, *MAY_KNOW[room]}
