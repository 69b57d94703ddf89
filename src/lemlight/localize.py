"""python -m lemlight.localize: probability, location map and regions of images, in original pixels."""

from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> None:
    """Check the config, then localize."""
    from lemlight.config.check import check
    from lemlight.config.commands import LocalizeConfig

    config = check(cfg, LocalizeConfig)
    from lemlight.recipe.localize import localize  # heavy: only once the config is known to be right

    localize(config)


def main() -> None:
    """The entry point of `python -m lemlight.localize` and of `lemlight-localize`."""
    run_command("localize", task)


if __name__ == "__main__":
    main()
