"""python -m lemlight.export: a trained network as ONNX and as a program of torch.export, checked against itself."""

from omegaconf import DictConfig

from lemlight.cli import run_command


def task(cfg: DictConfig) -> None:
    """Check the config, then export."""
    from lemlight.config.check import check
    from lemlight.config.commands import ExportConfig

    config = check(cfg, ExportConfig)
    from lemlight.recipe.export import export  # heavy: only once the config is known to be right

    export(config)


def main() -> None:
    """The entry point of `python -m lemlight.export` and of `lemlight-export`."""
    run_command("export", task)


if __name__ == "__main__":
    main()
