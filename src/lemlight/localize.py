"""python -m lemlight.localize: probability, location map and regions of images, in original pixels."""

from pathlib import Path

from omegaconf import DictConfig

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import LocalizeSettings


def task(cfg: DictConfig) -> None:
    """Check the config, then localize."""
    localize(settings_of(cfg, LocalizeSettings))


def localize(config: LocalizeSettings) -> None:
    """Localize in every image of `config.input` and write the run folder, a row of predictions.csv as each is done.

    An image that cannot be read is a row with its error, and does not stop the rest.

    Raises:
        LemlightError: a checkpoint that cannot be used, no image at all, or none that can be read.
    """
    from tqdm import tqdm

    from lemlight.data.io import find_images
    from lemlight.errors import ImageError, LemlightError
    from lemlight.localization.predictor import build_predictor, read_images
    from lemlight.reporting.dicom_seg import check_highdicom
    from lemlight.reporting.localization_results import write_prediction, write_row

    hold(config.limits)
    if config.dicom_seg:
        check_highdicom()
    predictor = build_predictor(config)
    found, folder = find_images(Path(config.input)), Path(config.output)
    predictions, failed, odd = folder / "predictions.csv", [], []
    predictions.unlink(missing_ok=True)
    read = read_images([item.path for item in found], predictor.preprocessing)
    for item, image in tqdm(zip(found, read, strict=True), "localizing", len(found), unit="image"):
        if isinstance(image, ImageError):
            row = {"image_id": item.image_id, "path": str(item.path), "error": str(image)}
        else:
            (prediction,) = predictor.predict_prepared([image])
            row = write_prediction(prediction, item, predictor, config, folder)
        write_row(row, predictions)
        failed += [row["error"]] if row["error"] else []
        odd += [f"{row['path']}: {row['note']}"] if row.get("note") else []
    for what in odd:
        print(f"used, but {what}")
    for reason in failed:
        print(f"left out: {reason}")
    if len(failed) == len(found):
        raise LemlightError(f"none of the {len(found)} images could be read: see {predictions}")
    print(f"{len(found) - len(failed)} of {len(found)} images read; research only, not for clinical use")
    print(f"probabilities and regions: {predictions}")
    for name in ("overlays", "maps", "segmentations"):
        if (folder / name).is_dir():
            print(f"{name + ':':<26} {folder / name}")
    if config.dicom_seg and not (folder / "segmentations").is_dir():
        print(f"{'segmentations:':<26} none; written for DICOM images with a region that speaks for malignancy")


def main() -> None:
    """The entry point of `python -m lemlight.localize` and of `lemlight-localize`."""
    run_command("localize", task)


if __name__ == "__main__":
    main()
