"""lemlight: train, compare and explain whole-mammogram classifiers from image-level labels (research only)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `--help` needs no torch
    from lemlight.predictor import Predictor

__version__ = "0.1.0"


def load(
    checkpoint: str | Path | list[str | Path], trust: Sequence[str] = (), accelerator: str = "auto", **settings: Any
) -> "Predictor":
    """Open a trained network for Python: `lemlight.load("best.ckpt").predict("image.dcm")`.

    Args:
        checkpoint: a best.ckpt, a folder that holds one (a run's, or one with a model_card.md), or a model.onnx; a list
            of checkpoints is an ensemble.
        trust: modules outside of lemlight that the checkpoint may build parts of.
        accelerator: auto, cpu, gpu or mps.
        settings: method, follow, keep, smoothing, cutoff, cutoff_by, threshold, test_time_augmentation, as of
            `python -m lemlight.localize`.

    Raises:
        LemlightError: a file or a setting that cannot be used; it says why.
    """
    from omegaconf import OmegaConf

    from lemlight.building import check_settings
    from lemlight.cli import conf_dir
    from lemlight.predictor import build_predictor, file_in
    from lemlight.settings import LocalizeSettings

    conf = Path(conf_dir())
    values: Any = OmegaConf.to_container(OmegaConf.load(conf / "localize.yaml"), resolve=False)
    methods = OmegaConf.to_container(OmegaConf.load(conf / "localization" / "methods" / "default.yaml"))
    values |= {"localization": {"methods": methods}, "limits": {}, "input": "", "output": "", "choices": {}}
    several = isinstance(checkpoint, list)
    files = [str(file_in(Path(one))) for one in (checkpoint if isinstance(checkpoint, list) else [checkpoint])]
    values |= {"checkpoint": files if several else files[0], "trust": list(trust), "accelerator": accelerator}
    del values["defaults"]
    return build_predictor(check_settings(values | settings, LocalizeSettings, where="lemlight.load"))
