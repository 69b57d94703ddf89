"""python -m lemlight.evaluate: the figures of any checkpoint on any data set."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> float | None:
    """Check the config, then evaluate; returns the AUC."""
    from lemlight.config.check import check
    from lemlight.config.commands import EvaluateConfig

    config = check(cfg, EvaluateConfig)
    from lemlight.recipe.evaluate import evaluate  # heavy: only once the config is known to be right

    value: float | None = evaluate(config, HydraConfig.get().overrides.task)["auroc"]["value"]
    return value


def main() -> None:
    """The entry point of `python -m lemlight.evaluate` and of `lemlight-evaluate`."""
    run_command("evaluate", task)


if __name__ == "__main__":
    main()
