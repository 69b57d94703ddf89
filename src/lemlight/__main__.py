"""python -m lemlight: the commands, a line each."""

from pathlib import Path

from omegaconf import OmegaConf

from lemlight import __version__
from lemlight.cli import conf_dir, ending_in_a_sentence

COMMANDS = ("download", "prepare", "train", "evaluate", "localize", "report", "export")  # as one follows the other


def main() -> None:
    """Print the commands with the first sentence of their help."""
    lines = [f"lemlight {__version__}: weakly supervised mammogram classification; research only", ""]
    for name in COMMANDS:
        header = str(OmegaConf.load(Path(conf_dir(), "hydra", "help", f"{name}.yaml")).header)
        lines.append(f"  python -m lemlight.{name:<9} {header.splitlines()[0]}")
    lines += ["", "--help of each shows its choices and examples, --cfg job every setting, --version the version"]
    with ending_in_a_sentence():
        print("\n".join(lines))


if __name__ == "__main__":
    main()
