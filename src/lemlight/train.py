"""python -m lemlight.train: prepare what is missing, fit, test the best checkpoint, write the report."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> float | None:
    """Check the config, then train; returns the best monitored figure of the validation split, for a search."""
    from lemlight.config.check import check
    from lemlight.config.commands import TrainConfig
    from lemlight.sweeps.names import Sweep

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        from lemlight.sweeps.jobs import run_job

        return run_job(cfg)

    config = check(cfg, TrainConfig)

    from lemlight.recipe.train import train  # heavy: only once the config is known to be right

    value: float | None = train(config, hydra.overrides.task, Sweep.of_this_process())["validation"]
    return value


def main() -> None:
    """The entry point of `python -m lemlight.train` and of `lemlight-train`."""
    from lemlight.sweeps.jobs import leaving_outcome

    run_command("train", leaving_outcome(task))


if __name__ == "__main__":
    main()
