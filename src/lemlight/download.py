"""python -m lemlight.download: fetch a public data set, or a small part of it, and check that it is whole."""

from pathlib import Path

from lemlight.cli import conf_dir, run_command, settings_of
from lemlight.settings import DownloadSettings


def download(settings: DownloadSettings) -> None:
    """Say what the source of a data set holds, fetch it unless `check_only`, and name the next command.

    Raises:
        LemlightError: a package, a login, room on the disk or the network is missing; nothing that came is lost.
    """
    from lemlight.building import build
    from lemlight.errors import LemlightError
    from lemlight.files import locked
    from lemlight.terminal import print_summary

    name, root = str(settings.choices["dataset"]), Path(settings.root)
    if not settings.source:
        known = sorted(file.stem for file in Path(conf_dir(), "source").glob("*.yaml"))
        raise LemlightError(
            f"dataset={name}: lemlight knows no source of it, but of {', '.join(known)}; docs/data_sets.md says where "
            "others are to be had, and +source._target_=... takes one of your own"
        )
    source = build(settings.source, "source")
    print(source.describe(root, settings.patients, settings.seed), flush=True)
    if settings.check_only:
        print("nothing was fetched (check_only=true)")
        return
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".download.lock", f"fetching into {root}"):
        came = source.fetch(root, settings.patients, settings.seed)
    of_part = " dataset.allow_missing=true" if settings.patients else ""
    following = f"python -m lemlight.prepare dataset={name} dataset.root={root}{of_part} check_only=true"
    print_summary({"fetched": came, "folder": root, "next": following})


def main() -> None:
    """The entry point of `python -m lemlight.download` and of `lemlight-download`."""
    run_command("download", lambda config: download(settings_of(config, DownloadSettings)))


if __name__ == "__main__":
    main()
