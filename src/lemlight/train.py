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
    sweep: Sweep | None = None

    def train_one(config: TrainConfig) -> float | None:
        from lemlight.recipe.train import train  # heavy: only once the config is known to be right

        value: float | None = train(config, hydra.overrides.task, sweep)["validation"]
        return value

    if hydra.mode != RunMode.MULTIRUN:
        return train_one(check(cfg, TrainConfig))

    from lemlight.sweeps.jobs import run_job
    from lemlight.sweeps.names import overrides_of_the_sweep

    sweep = Sweep(overrides_of_the_sweep(cfg), list(hydra.sweeper.get("params") or ()))

    def train_in_a_sweep(config: TrainConfig) -> float | None:
        from lemlight.sweeps.processes import own_processes

        with own_processes("lemlight.train", resume=config.resume):
            return train_one(config)

    return run_job(cfg, train_in_a_sweep)


def main() -> None:
    """The entry point of `python -m lemlight.train` and of `lemlight-train`."""
    run_command("train", task)


if __name__ == "__main__":
    main()
