"""python -m lemlight.localize: probability, location map and regions of images, in original pixels."""

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import LocalizeSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from lemlight.data.reading.io import FoundImage
    from lemlight.data.reading.isolated import Processes
    from lemlight.errors import ImageError
    from lemlight.predictor import Prediction, Predictor
    from lemlight.reporting.prediction_files import Localized

SAID = 10  # images that are named on the terminal for one reason


def localize(config: LocalizeSettings) -> None:
    """Localize in every image of `config.input` and write the run folder, a row of predictions.csv as each is done.

    An image that cannot be read is a row with its error, and does not stop the rest. Processes read and write while the
    network is at other images; rows come in the order of the folder.

    Raises:
        LemlightError: a checkpoint that cannot be used, no image at all, or none that can be read.
    """
    import pandas as pd

    from lemlight.data.preparing.store import read_prepared
    from lemlight.data.reading.io import find_images
    from lemlight.data.reading.isolated import Processes
    from lemlight.errors import ImageError, LemlightError
    from lemlight.reporting.dicom_seg import check_highdicom
    from lemlight.reporting.prediction_files import sort_rows, start_rows, write_files, write_row
    from lemlight.terminal import Progress, print_summary

    hold(config.limits)
    if config.dicom_seg:
        check_highdicom()
    found, folder = find_images(Path(config.input)), Path(config.output)
    predictions, failed, odd = folder / "predictions.csv", [], []
    paths = [item.path for item in found]
    # a second process for one image costs more than it brings
    with Processes(max(1, min(config.workers, len(found) - 1))) as processes:
        # while PyTorch and the network are loaded
        processes.start(read_prepared, *([write_files] if config.workers else []))
        from lemlight.predictor import build_predictor

        predictor = build_predictor(config)
        done = start_rows(predictions, _what_decides(config), paths, config.resume)
        todo = [item for item in found if item.path not in done]
        if done:
            print(f"{len(found) - len(todo)} of {len(found)} images were done before")
        with closing(_rows(todo, predictor, config, folder, processes)) as rows:
            for item, row in Progress("localizing", len(todo)).over(zip(todo, rows, strict=True)):
                if isinstance(row, ImageError):
                    row = {"image_id": item.image_id, "path": str(item.path), "error": str(row)}
                write_row(row, predictions)
                failed += [_named(row, row["error"])] if row["error"] else []
                odd += [_named(row, row["note"])] if row.get("note") else []
    if done:
        sort_rows(predictions, paths)
    for said, rest in (("used, but", odd), ("left out:", failed)):
        print("".join(f"{said} {one}\n" for one in rest[:SAID]), end="")
        if len(rest) > SAID:
            print(f"{said} {len(rest) - SAID} more, see {predictions}")
    if len(failed) == len(found):
        raise LemlightError(f"none of the {len(found)} images could be read: see {predictions}")
    print(f"{len(found) - len(failed)} of {len(found)} images read; research only, not for clinical use")
    counts = pd.read_csv(predictions, usecols=["prediction"])["prediction"].value_counts()
    rows_of: dict[str, object] = {f"predicted {name}": f"{count} images" for name, count in counts.items()}
    rows_of["probabilities and regions"] = predictions
    rows_of |= {name: folder / name for name in ("overlays", "maps", "segmentations") if (folder / name).is_dir()}
    if config.dicom_seg and "segmentations" not in rows_of:
        rows_of["segmentations"] = "none; written for DICOM images with a region that speaks for malignancy"
    print_summary(rows_of)


def _named(row: dict[str, Any], what: str) -> str:
    """What is odd or wrong about an image, with its file, which some of these sentences name themselves."""
    return what if row["path"] in what else f"{row['path']}: {what}"


def _what_decides(config: LocalizeSettings) -> dict[str, Any]:
    """The settings that decide what is written, and which checkpoint it is: a run that goes on needs the same."""
    from lemlight.training.trained import files_of

    free = {"resume", "output", "workers", "batch_size", "accelerator", "limits", "choices", "trust"}
    found = [path.stat() for path in files_of(config.checkpoint)]
    written = [number for status in found for number in (status.st_size, status.st_mtime_ns)]
    return config.model_dump(mode="json", exclude=free) | {"checkpoint bytes": written}


def _rows(
    items: "Sequence[FoundImage]",
    predictor: "Predictor",
    config: LocalizeSettings,
    folder: Path,
    processes: "Processes",
) -> "Generator[dict[str, Any] | ImageError, None, None]":
    """The row of each image once its files are written, or why there is none: read, predicted and written at once."""
    from functools import partial

    import torch

    from lemlight.errors import ImageError
    from lemlight.plots.overlays import LONGEST
    from lemlight.predictor import read_images
    from lemlight.reporting.prediction_files import Wanted, write_files

    alone = not config.workers or len(items) < 2
    side_by_side = predictor.device.type == "cpu" and not alone
    threads = min(processes.workers, torch.get_num_threads()) if side_by_side else 1
    read = read_images([item.path for item in items], predictor.preprocessing, processes, LONGEST)

    def predicted() -> "Generator[Localized | dict[str, Any], None, None]":
        for item, one in zip(items, predictor.predict_read(read, config.batch_size, threads), strict=True):
            if isinstance(one, ImageError):
                yield {"image_id": item.image_id, "path": str(item.path), "error": str(one)}
            else:
                yield _localized(item, one, masks=config.dicom_seg)

    wanted = Wanted(folder, config.overlays, config.maps, config.dicom_seg, f"lemlight {predictor.method}")
    writing = partial(write_files, wanted=wanted)
    with closing(read), closing(predicted()) as localized:
        yield from map(writing, localized) if alone else processes.map(writing, localized, _path_of, ahead=1)


def _path_of(one: "Localized | dict[str, Any]") -> object:
    return one["path"] if isinstance(one, dict) else one.item.path


def _localized(item: "FoundImage", prediction: "Prediction", masks: bool) -> "Localized":
    """What the processes that write need of a prediction: the masks of regions for segmentations alone."""
    from dataclasses import replace

    from lemlight.reporting.prediction_files import Localized

    explanation = prediction.explanation
    return Localized(
        item=item,
        picture=prediction.image.pixels,
        spacing_mm=prediction.image.spacing_mm,
        notes=prediction.image.notes,
        geometry=prediction.geometry,
        strength=prediction.strength,
        location_map=explanation.maps[0].numpy(),
        score_map=explanation.score_map[0].numpy(),
        regions=[one if masks else replace(one, mask=one.mask[:0]) for one in prediction.regions],
        probability=prediction.probability,
        prediction=prediction.label,
        n_maxima=int(explanation.maxima.sum()),
        n_minima=int(explanation.minima.sum()),
        lost=float(explanation.lost[0]),
    )


def main() -> None:
    """The entry point of `python -m lemlight.localize` and of `lemlight-localize`."""
    # threads of the network that wait actively take the cores from the processes that read and write
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_command("localize", lambda config: localize(settings_of(config, LocalizeSettings)))


if __name__ == "__main__":
    main()
