"""python -m lemlight.prepare: find, check and store the images of a data set, and say on one page what is there."""

from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> None:
    """Check the config, then prepare."""
    from lemlight.config.check import check
    from lemlight.config.commands import PrepareCommandConfig

    config = check(cfg, PrepareCommandConfig)
    from lemlight.recipe.prepare import prepare_dataset  # heavy: only once the config is known to be right

    prepare_dataset(config)


def main() -> None:
    """The entry point of `python -m lemlight.prepare` and of `lemlight-prepare`."""
    run_command("prepare", task)


if __name__ == "__main__":
    main()
