"""What can be known to go wrong on this machine before any work is done."""

import importlib.util
from pathlib import Path

import torch

from lemlight.config.commands import TrainConfig
from lemlight.errors import LemlightError


def check_machine(config: TrainConfig) -> None:
    """Refuse a training that this machine cannot carry out.

    Raises:
        LemlightError: lists all that is missing, each with its remedy.
    """
    problems = [*_devices(config), *_files(config)]
    if config.logger.tensorboard and importlib.util.find_spec("tensorboard") is None:
        problems.append("logger=tensorboard needs a package: pip install 'lemlight[tensorboard]', or use logger=csv")
    if problems:
        raise LemlightError("this training cannot start:\n" + "\n".join(f"  {problem}" for problem in problems))


def _devices(config: TrainConfig) -> list[str]:
    trainer = config.trainer
    gpus = torch.cuda.device_count()
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not gpus)
    if trainer.accelerator == "gpu" and not gpus:
        return ["trainer.accelerator=gpu: no GPU is visible here; use trainer=default or trainer=cpu"]
    if trainer.accelerator == "mps" and not torch.backends.mps.is_available():
        return ["trainer.accelerator=mps: there is none here; use trainer=default or trainer=cpu"]
    if not on_cpu and isinstance(trainer.devices, int) and trainer.devices > max(gpus, 1):
        return [f"trainer.devices={trainer.devices}: this machine has {gpus}; use trainer.devices=auto"]
    if on_cpu and trainer.precision != "32-true":
        return [f"trainer.precision={trainer.precision} is for GPUs; on this machine use trainer.precision=32-true"]
    return []


def _files(config: TrainConfig) -> list[str]:
    named = {"resume": config.resume, "backbone.weights_file": config.backbone.weights_file}
    return [f"{key}={file}: there is no such file" for key, file in named.items() if file and not Path(file).is_file()]
