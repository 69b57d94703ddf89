"""A trained network as one file of ONNX: written with its preprocessing, compared with the network, opened again."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim

from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier

INPUT, OUTPUTS = "image", ("probability", "score_map")
METADATA_KEY = "lemlight"  # in metadata_props
FORMAT = 1  # of the metadata
TO_WRITE = ("onnx", "onnxscript", "onnxruntime")  # the last one to check what was written
TO_READ = ("onnxruntime",)
SILENT = 4  # log_severity_level: errors come as exceptions already
TOLERANCE = 1e-4  # of a probability


def is_exported(path: Path) -> bool:
    """Whether the name of a file says that it is an exported network, not a checkpoint."""
    return path.suffix.lower() == ".onnx"


def check_packages(needed: tuple[str, ...] = TO_READ) -> None:
    """Raise LemlightError, which says how to get them, where packages are not installed: before any work."""
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise LemlightError(f"ONNX needs {', '.join(missing)}: pip install 'lemlight[onnx]'")


class PredictingGraph(nn.Module):
    """Images `(N, 1, H, W)` in [0, 1], as prepared -> probability `(N,)` and score map `(N, h, w)` in logits.

    What only a training needs, the second logit and the loss terms, is not written.

    Raises:
        LemlightError: `inside_breast` with a pooling that is called image by image, which a graph cannot be.
    """

    def __init__(self, classifier: MammogramClassifier) -> None:
        super().__init__()
        if classifier.inside_breast and not classifier.takes_valid:
            raise LemlightError(
                f"pooling: {type(classifier.pooling).__name__} cannot be exported with inside_breast=true: give its "
                "forward an argument `valid`, the cells (N, h, w) that count"
            )
        self.classifier = classifier.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict; float32."""
        scores = self.classifier(image)
        return scores.logit.sigmoid(), scores.score_map


def write_onnx(graph: PredictingGraph, shape: tuple[int, int], metadata: Mapping[str, Any], path: Path) -> None:
    """Write a network on the CPU, for prepared images of `shape` (H, W) px, and plain values about it as one file."""
    for chatty in ("onnx_ir", "onnxscript"):  # a line for each step of their optimizers
        logging.getLogger(chatty).setLevel(logging.WARNING)
    example = torch.rand(2, 1, *shape)  # of one image, N would be taken for a constant
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: Dim("images", min=1)},), strict=False)
        exported = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS), verbose=False
        )
    assert exported is not None  # None is for the exporter before dynamo
    exported.model.graph.metadata_props.clear()
    for node in exported.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of code that it comes from, with the folders of this machine
    text = json.dumps({"format": FORMAT, **metadata}, allow_nan=False)
    exported.model.metadata_props[METADATA_KEY] = text
    exported.save(path)


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported network on the CPU.

    path: the file.
    metadata: plain values that nothing has acted upon.
    run: images `(N, 1, H, W)` float32 -> probability and score map, unchecked; it may raise anything.
    """

    path: Path
    metadata: dict[str, Any]
    run: Callable[[Tensor], tuple[Tensor, Tensor]]

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict images `(N, 1, H, W)` in [0, 1]: probability `(N,)` and score map `(N, h, w)` in logits, float32.

        Raises:
            LemlightError: the network fails, or its answer is none: it may come from a stranger.
        """
        try:
            probability, score_map = self.run(images.float())
        except Exception as error:  # the runtime has errors of its own, and a graph can fail in any way
            raise LemlightError(
                f"{self.path} fails on images of {images.shape[2]} x {images.shape[3]} px: export the checkpoint again"
            ) from error
        right = (
            probability.shape == images.shape[:1]
            and score_map.ndim == 3
            and len(score_map) == len(images)
            and score_map.numel() > 0
            and bool(torch.isfinite(score_map).all())
            and bool(((probability >= 0) & (probability <= 1)).all())
        )
        if not right:
            raise LemlightError(
                f"{self.path} answers with something other than probabilities and score maps: "
                "give a file that lemlight.export wrote"
            )
        return probability.float(), score_map.float()


def open_onnx(path: Path) -> ExportedNetwork:
    """Open a file of ONNX on the CPU without running any code that it may carry.

    Raises:
        LemlightError: onnxruntime is missing; the file is missing, damaged, no ONNX, or not of lemlight.
    """
    check_packages()
    if not path.is_file():
        raise LemlightError(f"there is no exported network at {path}: give a file that lemlight.export wrote")
    session = _session(path)
    metadata = _metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
    given = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
    if given != ([INPUT], list(OUTPUTS)):
        raise LemlightError(f"{path} has other inputs or outputs than those of lemlight.export: give a file of it")

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        probability, score_map = session.run(list(OUTPUTS), {INPUT: images.contiguous().numpy()})
        return torch.as_tensor(probability), torch.as_tensor(score_map)

    return ExportedNetwork(path, metadata, run)


def _session(path: Path) -> Any:
    import onnxruntime  # type: ignore[import-untyped]  # carries no types

    onnxruntime.disable_telemetry_events()  # some builds have them
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        # from bytes: a path would let the file name others, which the runtime then reads
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has errors of its own, one for each way to be damaged
        raise LemlightError(
            f"{path} cannot be read as an ONNX model: it is damaged, incomplete, or needs other files; "
            "copy it again or export the checkpoint again"
        ) from error


def _metadata(text: str | None, path: Path) -> dict[str, Any]:
    """What the file says of its network, without the number of its format; nothing of it is checked yet."""
    if text is None:
        raise LemlightError(f"{path} has no metadata of lemlight: give a file that lemlight.export wrote")
    try:
        metadata = json.loads(text)
        number = metadata.pop("format")
        if type(number) is not int:
            raise ValueError("no format number")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LemlightError(f"{path} is damaged: its metadata cannot be read; export the checkpoint again") from error
    if number > FORMAT:
        raise LemlightError(f"{path} has format {number}, this lemlight reads up to {FORMAT}: upgrade lemlight")
    return dict(metadata)


class Agreement(NamedTuple):
    """The largest differences over all images: of a probability, and of a score in logits."""

    images: int
    probability: float
    score: float


def images_to_compare(shape: tuple[int, int], prepared: Sequence[Tensor]) -> list[Tensor]:
    """Batches `(N, 1, H, W)`: three of noise at once, a black image, and prepared images one by one."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 1, *shape, generator=generator), torch.zeros(1, 1, *shape), *prepared]


@torch.no_grad()
def compare(original: PredictingGraph, exported: ExportedNetwork, batches: Sequence[Tensor]) -> Agreement:
    """Predict batches with both and say by how much they differ.

    Raises:
        LemlightError: the exported network fails, its score maps have another size, or a probability differs by more
            than the tolerance.
    """
    probabilities, scores = [], []
    for images in batches:
        expected, score_map = original(images)
        probability, exported_map = exported.predict(images)
        if exported_map.shape != score_map.shape:
            raise LemlightError(
                f"the exported network has score maps of {tuple(exported_map.shape)} for {tuple(score_map.shape)}"
            )
        probabilities.append((expected - probability).abs().max())
        scores.append((score_map - exported_map).abs().max())
    count = sum(len(images) for images in batches)
    # max of tensors keeps NaN, where Python's max may lose it
    found = Agreement(count, float(torch.stack(probabilities).max()), float(torch.stack(scores).max()))
    if not found.probability <= TOLERANCE:  # not true of NaN either
        why = ""
        if found.score <= TOLERANCE:
            why = (
                f", although no score differs by more than {found.score:.1e}: the pooling method decides between cells "
                "whose scores are equal but for rounding, as in flat areas"
            )
        raise LemlightError(
            f"the exported network is not the trained one: probabilities differ by up to {found.probability:.1e}, "
            f"{TOLERANCE:.0e} is allowed{why}; no file was left"
        )
    return found
