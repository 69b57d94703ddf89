"""Where the Hydra tree stands."""

from pathlib import Path

from lemlight.errors import LemlightError


def conf_dir() -> str:
    """The absolute path of conf/: in the checkout for an editable install, else beside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return str(candidate)
    raise LemlightError(f"no configs at {package / 'conf'}: install lemlight again (its wheel carries conf/)")
