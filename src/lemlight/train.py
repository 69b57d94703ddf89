"""python -m lemlight.train: prepare what is missing, fit, test the best checkpoint, write the report."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> float | None:
    """Check the config, then train; returns the AUC on the test split, for a sweeper that optimizes it."""
    from lemlight.config.check import check
    from lemlight.config.commands import TrainConfig

    config = check(cfg, TrainConfig)
    from lemlight.recipe.train import train  # heavy: only once the config is known to be right

    hydra = HydraConfig.get()
    summary = train(config, hydra.overrides.task, several_jobs=hydra.mode == RunMode.MULTIRUN)
    value: float | None = summary["auroc"]["value"]
    return value


def main() -> None:
    """The entry point of `python -m lemlight.train` and of `lemlight-train`."""
    run_command("train", task)


if __name__ == "__main__":
    main()
