"""A trained network that predicts single images: probability, location map, regions in original pixels."""

import copy
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, overload

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

import lemlight
from lemlight.arguments import Count, Probability
from lemlight.building import Settings, check_settings
from lemlight.data.datamodule import unit_range
from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.preparing import breast
from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.preparing.store import PrepareSettings, read_prepared
from lemlight.data.reading.io import find_images
from lemlight.data.reading.isolated import Processes, given, map_isolated
from lemlight.data.reading.raster import Image
from lemlight.errors import ImageError, LemlightError
from lemlight.localization.attribution import Explanation, MeanStrength, explain, explain_scores, regions_of
from lemlight.localization.choice import Chosen, RegionSettings, build_methods, settings_of, settings_together
from lemlight.localization.regions import Region, cutoff_in, smoothed
from lemlight.metrics import LevelRule
from lemlight.metrics.levels import joined
from lemlight.models.exported import ExportedNetwork, is_exported, open_onnx
from lemlight.plots.overlays import OverlayItem, overlay_figure
from lemlight.settings import LocalizeSettings
from lemlight.training.trained import Preprocessing, Trained, open_networks

EXPORTED_METHOD = "cam"  # the map that the outputs of an exported network hold
BATCH = 8  # images that are predicted at once


Read = tuple[Image, BreastGeometry, NDArray[np.uint16]]  # an image, and how it was prepared: (H, W)


@dataclass(frozen=True)
class Prediction:
    """One image as the network saw it: `strength` (H, W) in [0, 1] of the prepared image, regions in original px.

    `label` is the name of what it is predicted to be.
    """

    image: Image
    geometry: BreastGeometry
    explanation: Explanation
    strength: NDArray[np.float32]
    regions: list[Region]
    label: str = ""

    @property
    def probability(self) -> float:
        """Of malignancy, in [0, 1]."""
        return float(self.explanation.probability[0])

    @cached_property
    def location_map(self) -> NDArray[np.float32]:
        """Where the network looks, in px of the original (H, W), in [0, 1]; 0 outside of what it was shown."""
        return self.geometry.map_to_original(self.strength)

    def overlay(self, image_id: str = "") -> OverlayItem:
        """The image with its location map and regions, as a picture shows it."""
        return OverlayItem(
            image=self.image.pixels,
            strength=self.location_map,
            regions=self.regions,
            probability=self.probability,
            prediction=self.label,
            image_id=image_id,
            spacing=self.image.spacing_mm,
        )

    def plot(self, path: str | Path | None = None) -> PIL.Image.Image:
        """Draw the image beside itself under its location map with its regions; into a PNG file as well, if given."""
        with tempfile.TemporaryDirectory() as folder:
            drawn = overlay_figure(self.overlay(), Path(path) if path else Path(folder, "overlay.png"))
            with PIL.Image.open(drawn) as picture:
                picture.load()
                return picture


@dataclass(frozen=True)
class Predictor:
    """A trained network that is ready to predict images; `lemlight.load` opens one."""

    explain: Callable[[Tensor], Explanation]  # of images (N, 1, H, W) in [0, 1] on the device
    device: torch.device
    preprocessing: Preprocessing
    method: str
    regions: RegionSettings
    label_names: list[str]

    @overload
    def predict(self, images: str | Path | NDArray[Any] | Tensor) -> Prediction: ...

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...]) -> list[Prediction | ImageError]: ...

    def predict(self, images: Any) -> Any:
        """Predict and localize an image, or each of a list, in batches.

        An image is a file (DICOM, PNG, PGM, TIFF, JPEG) or its pixels (H, W), air dark: floats in [0, 1], or integers,
        which are divided by the greatest of their type, as those of a file are.

        Returns:
            A `Prediction`, or a list of them in order, with an ImageError in the place of what cannot be used.

        Raises:
            ImageError: a single image cannot be used; it says why.
        """
        if isinstance(images, list | tuple):
            return list(self.predict_all(images))
        if isinstance(images, str | Path) and Path(images).is_dir():
            raise ImageError(f"{images} is a folder: predict_folder goes through its images")
        (one,) = self.predict_all([images])
        return given(one)

    def predict_folder(self, folder: str | Path) -> Iterator[tuple[Path, Prediction | ImageError]]:
        """Predict every image below a folder, each with its file, in the order of their names."""
        files = [item.path for item in find_images(Path(folder))]
        yield from zip(files, self.predict_all(files), strict=True)

    def probability_of(self, views: Sequence[Prediction | ImageError], rule: LevelRule = "mean_logit") -> float:
        """The probability of a breast, or of a woman, from its images, by a rule of `lemlight.metrics.levels`.

        Raises:
            ImageError: a view could not be used, or there is none; leave it out to judge by the others.
        """
        if not views:
            raise ImageError("a breast or a woman without an image has no probability")
        return joined([given(view).probability for view in views], rule)

    def predict_all(self, images: Iterable[Any]) -> Iterator[Prediction | ImageError]:
        """Predict images one batch after the other, so that any number of them fits the memory."""
        return self.predict_read(self._read(images), BATCH)

    def _read(self, images: Iterable[Any]) -> Iterator[Read | ImageError]:
        left = iter(images)
        while some := list(islice(left, BATCH)):
            files = [Path(one) for one in some if isinstance(one, str | Path)]
            from_files = read_images(files, self.preprocessing)
            yield from (next(from_files) if isinstance(one, str | Path) else self._prepared(one) for one in some)

    def predict_read(
        self, read: Iterable[Read | ImageError], batch_size: int, threads: int = 1
    ) -> Iterator[Prediction | ImageError]:
        """Predict images that were read, in their order; an ImageError stays in its place.

        On a CPU several `threads` predict batches at the same time, each with its own copy of the network and its part
        of PyTorch's threads: that is faster than one batch after the other by all of them.
        """
        left = iter(read)
        batches = iter(lambda: list(islice(left, batch_size)), [])
        copies = self._copies(threads)
        if len(copies) == 1:
            yield from chain.from_iterable(map(self._predict_some, batches))
            return
        free: SimpleQueue[Predictor] = SimpleQueue()
        for own in copies:
            free.put(own)

        def predict(batch: list[Read | ImageError]) -> list[Prediction | ImageError]:
            own = free.get()
            try:
                return own._predict_some(batch)
            finally:
                free.put(own)

        each, waiting = max(1, torch.get_num_threads() // threads), deque[Future[list[Prediction | ImageError]]]()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            try:
                for batch in batches:
                    waiting.append(pool.submit(predict, batch))
                    if len(waiting) > 2 * threads:  # so that none waits while the caller is busy with what it got
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:  # whoever is interrupted does not wait for what nobody will look at
                pool.shutdown(wait=False, cancel_futures=True)

    def _copies(self, count: int) -> "list[Predictor]":
        try:
            return [self, *(replace(self, explain=copy.deepcopy(self.explain)) for _ in range(1, count))]
        except Exception:  # a method of a user's own may hold what cannot be copied: then one after the other
            return [self]

    def _predict_some(self, batch: list[Read | ImageError]) -> list[Prediction | ImageError]:
        predicted = iter(self.predict_prepared([one for one in batch if not isinstance(one, ImageError)]))
        return [one if isinstance(one, ImageError) else next(predicted) for one in batch]

    def predict_prepared(self, read: Sequence[Read]) -> list[Prediction]:
        """Predict and localize images that were read and prepared, all in one batch."""
        if not read:
            return []
        batch = torch.cat([as_batch(pixels) for _, _, pixels in read]).to(self.device)
        found: Any = [None if part is None else part.cpu() for part in self.explain(batch)]  # a GPU is soon full
        explained, predictions = Explanation(*found), []
        if not explained.probability.isfinite().all():
            raise LemlightError("the network answers with no number: its training has diverged; use another checkpoint")
        for number, (image, geometry, _) in enumerate(read):
            parts: Any = [None if part is None else part[number : number + 1] for part in explained]
            one = Explanation(*parts)
            strength = smoothed(one.maps[0].numpy(), self.regions.smoothing)
            regions = regions_of(one, 0, strength, cutoff_in(strength, self.regions), geometry, image.spacing_mm)
            label = self.label_names[int(one.malignant[0])]
            predictions.append(Prediction(image, geometry, one, strength, regions, label))
        return predictions

    def _prepared(self, pixels: Any) -> Read | ImageError:
        try:
            image, shape = image_of(pixels), (self.preprocessing.height, self.preprocessing.width)
            prepared = breast.prepare_image(image, shape, self.preprocessing.crop, self.preprocessing.flip)
        except ImageError as error:
            return error
        geometry, values, notes = prepared
        return replace(image, notes=(*image.notes, *notes)), geometry, values


def image_of(pixels: Any) -> Image:
    """An image from its pixels (H, W) or (1, H, W), an array or a tensor; ImageError for what is none.

    Integers are divided by the greatest value of their type, as those of a file are; floats must be in [0, 1].
    """
    array = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else np.asarray(pixels)
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "uif" or not array.size:
        raise ImageError(f"an image has pixels (H, W), not an array of shape {array.shape} and type {array.dtype}")
    bits = 16 if array.dtype.kind == "f" else 8 * array.dtype.itemsize
    values = np.asarray(array, dtype=np.float32)
    if array.dtype.kind != "f":
        values /= np.float32(np.iinfo(array.dtype).max)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ImageError("the pixels of an image are in [0, 1], or integers that are not negative")
    return Image(values, bits=bits)


def read_images(
    paths: Iterable[Path], prepare: Preprocessing, processes: Processes | None = None, longest: int | None = None
) -> Generator[Read | ImageError, None, None]:
    """Read images and prepare them, while the network is at those before; or say why not, in their order.

    By one process, unless others are given. With `longest` px their own pixels are made smaller.
    """
    reading = partial(read_prepared, settings=PrepareSettings(**prepare.model_dump()), longest=longest)
    return processes.map(reading, paths) if processes else map_isolated(reading, paths, workers=1)


def phantom_as_prepared(prepare: Preprocessing) -> NDArray[np.uint16]:
    """A synthetic mammogram as prepared, (H, W): a breast before air, which noise is not."""
    image = Image(render(PhantomSettings(patients=1, scale=0.25), 0, "L", "MLO").pixels)
    return breast.prepare_image(image, (prepare.height, prepare.width), prepare.crop, prepare.flip)[1]


def as_batch(pixels: NDArray[np.uint16]) -> Tensor:
    """A prepared image (H, W) as a network takes it: `(1, 1, H, W)` float32 in [0, 1]."""
    return unit_range(torch.from_numpy(pixels))[None, None]


def file_in(place: Path) -> Path:
    """The file of a network, or the one in a folder of checkpoints or of a run; LemlightError where there is none."""
    if not place.is_dir():
        return place
    for name in ("best.ckpt", "checkpoints/best.ckpt", "model.onnx"):
        if (place / name).is_file():
            return place / name
    raise LemlightError(f"{place} holds no best.ckpt, no checkpoints/best.ckpt and no model.onnx: give one of these")


def build_predictor(config: LocalizeSettings) -> Predictor:
    """Load a checkpoint, or open an exported network; values of the command line come before those of the file."""
    exported = isinstance(config.checkpoint, str) and is_exported(Path(config.checkpoint))
    return _from_onnx(config) if exported else _from_checkpoints(config)


def _from_checkpoints(config: LocalizeSettings) -> Predictor:
    trained = open_networks(config.checkpoint, config.trust, config.test_time_augmentation)
    device, name = device_of(config.accelerator), config.method or "importance"
    method = build_methods({name: config.localization["methods"][name]})[name]
    trained.try_methods([method])
    trained.say_cost()
    own = [network.regions(name, _given(config), config.cutoff_by) for network in trained.networks]
    regions = own[0]
    if not trained.is_one:
        method, regions = MeanStrength(method, own, config.follow), settings_together(own)
    threshold = trained.operating(config.threshold).drawn
    options: dict[str, Any] = {"follow": config.follow, "keep": regions.keep, "threshold": threshold}
    explaining = partial(explain, trained.classifier.to(device), method=method, **options)
    return Predictor(explaining, device, trained.preprocessing, name, regions, trained.first.label_names)


def _from_onnx(config: LocalizeSettings) -> Predictor:
    """Open an exported network.

    Raises:
        LemlightError: a method that needs the network's layers, a device other than the CPU, or a file that cannot be
            used.
    """
    if config.test_time_augmentation:
        raise LemlightError("test_time_augmentation: needs the checkpoint, not an exported network")
    if config.method not in (None, EXPORTED_METHOD):
        raise LemlightError(
            f"method={config.method} goes back through the layers of the network, which an exported file does not "
            f"give: use method={EXPORTED_METHOD}, or the checkpoint that {config.checkpoint} was exported from"
        )
    if config.accelerator not in ("auto", "cpu"):
        raise LemlightError(f"accelerator={config.accelerator}: exported networks run on the CPU; use accelerator=auto")
    network = open_onnx(Path(str(config.checkpoint)))
    metadata = check_settings(network.metadata, ExportMetadata, where=f"the metadata in {network.path}")
    chosen = {} if metadata.cam is None else {EXPORTED_METHOD: metadata.cam}
    regions = settings_of(EXPORTED_METHOD, chosen, _given(config), metadata.output_stride, config.cutoff_by)
    threshold = metadata.threshold if config.threshold is None else config.threshold
    if config.method is None:
        print(f"location maps by method={EXPORTED_METHOD}: importance needs the checkpoint, not an exported network")
    explaining = partial(_explain_exported, network, threshold)
    device, prepare = torch.device("cpu"), metadata.preprocessing
    return Predictor(explaining, device, prepare, EXPORTED_METHOD, regions, metadata.label_names)


def _explain_exported(network: ExportedNetwork, threshold: float, images: Tensor) -> Explanation:
    probability, score_map = network.predict(images)
    return explain_scores(probability.double(), score_map, (images.shape[2], images.shape[3]), threshold)


def _given(config: LocalizeSettings) -> dict[str, float | None]:
    return {"keep": config.keep, "smoothing": config.smoothing, "cutoff": config.cutoff}


def device_of(accelerator: str) -> torch.device:
    """The device that a name of the configuration means; LemlightError where it is not there."""
    there = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device("cuda" if there["gpu"] else "cpu")
    if not there[accelerator]:
        raise LemlightError(f"accelerator={accelerator}: there is none here; use accelerator=auto")
    return torch.device({"gpu": "cuda"}.get(accelerator, accelerator))


class ExportMetadata(Settings):
    """What an exported file says of its network; `cam` is what the training chose for maps of that method, if any."""

    lemlight: str
    backbone: str
    output_stride: Count
    pooling: str
    preprocessing: Preprocessing
    label_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    threshold: Probability
    cam: Chosen | None


def export_metadata(trained: Trained) -> ExportMetadata:
    """What the export of a checkpoint says: nothing in it names a folder, an image or a machine."""
    return ExportMetadata(
        lemlight=lemlight.__version__,
        backbone=str(trained.first.choices.get("backbone")),
        output_stride=trained.classifier.output_stride,
        pooling=str(trained.first.choices.get("pooling")),
        preprocessing=trained.preprocessing,
        label_names=trained.first.label_names,
        threshold=trained.first.threshold,
        cam=trained.networks[0].chosen.get(EXPORTED_METHOD),
    )
