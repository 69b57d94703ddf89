"""python -m lemlight.report: many trainings on one page."""

from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> None:
    """Check the config, then compare."""
    from lemlight.config.check import check
    from lemlight.config.commands import ReportConfig

    config = check(cfg, ReportConfig)
    from lemlight.recipe.report import report  # heavy: only once the config is known to be right

    report(config)


def main() -> None:
    """The entry point of `python -m lemlight.report` and of `lemlight-report`."""
    run_command("report", task)


if __name__ == "__main__":
    main()
