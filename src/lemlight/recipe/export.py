"""The exporting recipe: a checkpoint -> files that predict the same without lemlight's classes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lemlight.config.check import check
from lemlight.config.commands import ExportConfig, TrainConfig
from lemlight.config.data import PrepareConfig
from lemlight.data.breast import find_geometry, prepare_pixels
from lemlight.data.datamodule import unit_range
from lemlight.data.io import find_images
from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.files import write_json, written_aside
from lemlight.localization.predictor import prepare_mammogram
from lemlight.models.exported import (
    SUFFIXES,
    TO_WRITE,
    Agreement,
    ExportedNetwork,
    PredictingGraph,
    check_images,
    check_packages,
    compare,
    open_onnx,
    open_program,
    trace,
    write_onnx,
    write_program,
)
from lemlight.recipe.export_card import card_of
from lemlight.recipe.model import build_classifier
from lemlight.training.checkpoint import load_checkpoint, load_weights

Writer = Callable[[ExportedProgram, Mapping[str, Any], Path], None]
Opener = Callable[[Path], ExportedNetwork]
FORMATS: dict[str, tuple[Writer, Opener]] = {
    "onnx": (write_onnx, open_onnx),
    "torch": (write_program, lambda path: open_program(path, trusted=True)),  # written a moment ago
}


def export(config: ExportConfig) -> dict[str, Agreement]:
    """Export a checkpoint, compare every file with the network, and say by how much they differ; by format.

    Raises:
        LemlightError: a checkpoint or an image that cannot be used, a missing package, or a file whose probabilities
            differ from the network's, which is not left.
    """
    formats = list(FORMATS) if config.format == "both" else [config.format]
    if "onnx" in formats:
        check_packages(TO_WRITE)
    checkpoint = load_checkpoint(Path(config.checkpoint))
    trained = check(checkpoint.config, TrainConfig, where=f"the configuration in {config.checkpoint}")
    prepare = check(checkpoint.preprocessing, PrepareConfig, where=f"the preprocessing in {config.checkpoint}")
    classifier = build_classifier(trained, first_weights=False)
    load_weights(classifier, checkpoint)
    classifier.eval().requires_grad_(False)
    card = card_of(checkpoint, trained, prepare).model_dump()
    shape, folder = (prepare.height, prepare.width), Path(config.output)
    batches = check_images(shape, [_drawn(prepare), *_given(config.input, prepare)])
    program, original = trace(classifier, shape), PredictingGraph(classifier)
    agreements = {}
    for name in formats:
        write, open_ = FORMATS[name]
        with written_aside(folder / f"model{SUFFIXES[name]}") as aside:
            write(program, card, aside)
            agreements[name] = compare(original, open_(aside), batches)
            agreements[name].check()
        _report(agreements[name], folder / f"model{SUFFIXES[name]}")
    write_json(card, folder / "card.json")
    print(f"preprocessing:  {folder / 'card.json'} (in every file, too)")
    return agreements


def _drawn(prepare: PrepareConfig) -> Tensor:
    """A synthetic mammogram as prepared: a breast before air, which noise is not."""
    pixels = render(PhantomSettings(patients=1, scale=0.25), 0, "L", "MLO").pixels
    shape = (prepare.height, prepare.width)
    geometry, breast = find_geometry(pixels, shape, crop=prepare.crop, flip=prepare.flip)
    return unit_range(torch.from_numpy(prepare_pixels(pixels, geometry, breast)))[None, None]


def _given(path: str | None, prepare: PrepareConfig) -> list[Tensor]:
    """The mammograms of a file or folder as prepared; ImageError names one that cannot be read."""
    found = [] if path is None else find_images(Path(path))
    return [prepare_mammogram(item.path, prepare)[2] for item in found]


def _report(agreement: Agreement, path: Path) -> None:
    print(f"exported:       {path} ({path.stat().st_size / 2**20:.1f} MB)")
    print(
        f"                probabilities of {agreement.images} images differ from the network's by at most "
        f"{agreement.probability:.1e}, scores by {agreement.score:.1e}"
    )
