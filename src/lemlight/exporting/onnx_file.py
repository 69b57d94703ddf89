"""ONNX: writing a traced network, and opening a file that may come from a stranger.

A graph of ONNX holds operators and numbers; onnxruntime runs no code from it. It can name further files to take numbers
from: the file is handed over as bytes, so that there is no folder that they could lie in.
"""

import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lemlight.errors import LemlightError
from lemlight.exporting.card import card_text, card_values
from lemlight.exporting.network import ExportedNetwork
from lemlight.exporting.program import INPUT, OUTPUTS

TO_WRITE = ("onnx", "onnxscript", "onnxruntime")  # the last one to check what was written
TO_READ = ("onnxruntime",)
CARD_KEY = "lemlight"  # in metadata_props
MOST_BYTES = 2**31 - 2**20  # of a protobuf message, which a file of ONNX is
SILENT = 4  # log_severity_level: errors come as exceptions already


def check_packages(needed: tuple[str, ...] = TO_READ) -> None:
    """Raise LemlightError, which says how to get them, where packages are not installed: before any work."""
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise LemlightError(f"ONNX needs {', '.join(missing)}: pip install 'lemlight[onnx]', or use format=torch")


def write_onnx(program: ExportedProgram, card: Mapping[str, Any], path: Path) -> None:
    """Write a traced network and its card as one file of ONNX.

    Raises:
        LemlightError: a package is missing, or the weights exceed the 2 GB of one file.
    """
    check_packages(TO_WRITE)
    weights = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if weights > MOST_BYTES:
        raise LemlightError(f"weights of {weights / 2**30:.1f} GB do not fit into one ONNX file: use format=torch")
    for chatty in ("onnx_ir", "onnxscript"):  # a line for each step of their optimizers
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter
        exported = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS), verbose=False
        )
    assert exported is not None  # None is for the exporter before dynamo
    exported.model.metadata_props[CARD_KEY] = card_text(card)
    exported.save(path)


def open_onnx(path: Path) -> ExportedNetwork:
    """Open a file of ONNX on the CPU without running any code that it may carry.

    Raises:
        LemlightError: onnxruntime is missing; the file is missing, damaged, no ONNX, or not of lemlight.
    """
    check_packages()
    if not path.is_file():
        raise LemlightError(f"there is no exported network at {path}: give a file that lemlight.export wrote")
    session = _session(path)
    card = card_values(session.get_modelmeta().custom_metadata_map.get(CARD_KEY), path)
    given = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
    if given != ([INPUT], list(OUTPUTS)):
        raise LemlightError(f"{path} has other inputs or outputs than those of lemlight.export: give a file of it")

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        probability, score_map = session.run(list(OUTPUTS), {INPUT: images.contiguous().numpy()})
        return torch.as_tensor(probability), torch.as_tensor(score_map)

    return ExportedNetwork(path, card, run)


def _session(path: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]  # carries no types

    onnxruntime.disable_telemetry_events()  # some builds have them
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has errors of its own, one for each way to be damaged
        raise LemlightError(
            f"{path} cannot be read as an ONNX model: it is damaged, incomplete, or needs other files; "
            "copy it again or export the checkpoint again"
        ) from error
