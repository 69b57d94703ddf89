"""Programs of torch.export: writing a traced network, and opening a file that must come from a friend.

`torch.export.load` (2.15) runs code that a file carries: weights and constants marked `use_pickle` go through
`torch.load(weights_only=False)` or `pickle.loads`, example inputs that `weights_only=True` refuses are read again
without it, symbolic sizes go through `sympy.sympify`, which evaluates Python, and compiled libraries of AOTInductor are
loaded. Its own documentation says never to load data from an untrusted source. The card is read without any of this.
"""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from lemlight.errors import LemlightError
from lemlight.exporting.card import MOST_BYTES, card_text, card_values
from lemlight.exporting.network import ExportedNetwork

CARD_FILE = "lemlight.json"  # among the extra files


def write_program(program: ExportedProgram, card: Mapping[str, Any], path: Path) -> None:
    """Write a traced network and its card as a file that `torch.export.load` reads; its name must end in .pt2."""
    torch.export.save(program, path, extra_files={CARD_FILE: card_text(card)})


def open_program(path: Path, trusted: bool) -> ExportedNetwork:
    """Open a program of torch.export on the CPU.

    Raises:
        LemlightError: the file is not `trusted`; it is missing, damaged, or not of lemlight.
    """
    if not path.is_file():
        raise LemlightError(f"there is no exported network at {path}: give a file that lemlight.export wrote")
    card = _read_card(path)
    if not trusted:
        raise LemlightError(
            f"{path} is refused: programs of torch.export can run code on this machine when they are loaded. Use the "
            "ONNX file or the checkpoint; for a program that you exported yourself, say trust=true"
        )
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it logs the traceback of what it goes on to raise
    try:
        module = torch.export.load(path).module()
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise LemlightError(
            f"{path} cannot be read as a program of this torch ({torch.__version__}): export the checkpoint again"
        ) from error
    finally:
        log.setLevel(level)
    return ExportedNetwork(path, card, module)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is not what was written")
            names = [name for name in archive.namelist() if name.endswith(f"/{CARD_FILE}")]
            text = None
            if names:
                with archive.open(names[0]) as file:
                    text = file.read(MOST_BYTES + 1).decode()
    except Exception as error:  # zipfile fails in many ways on a damaged file
        raise LemlightError(f"{path} is no whole program of torch.export: copy it again or export it again") from error
    return card_values(text, path)
