"""What Hydra calls in the process that was started, wherever the jobs run: the table at the end of a sweep."""

import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

FINE = ("done", "running")
DIRECTIONS = ("maximize", "minimize")  # of a search; a grid has none


class SweepTable(Callback):
    """Write table.csv and table.md over the jobs of a sweep, print them, and exit with 2 if one is not done."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Resolve the names of the sweep's folders here, once: what is cached goes to the jobs."""
        str(config.hydra.sweep.dir)
        str(config.hydra.sweep.subdir)
        if config.hydra.launcher._target_.endswith(".SlurmLauncher"):
            from lemlight.sweeps.slurm import wait_for_every_job

            wait_for_every_job()

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Read the states that the jobs left."""
        from lemlight.sweeps.table import best_first, markdown, read_rows, write_table

        folder = Path(config.hydra.sweep.dir)
        rows = read_rows(folder, expected_jobs(config))
        direction = str(config.hydra.sweeper.get("direction"))
        if direction in DIRECTIONS:
            rows = best_first(rows, direction)
        write_table(rows, folder)
        print(f"\n{markdown(rows)}\ntable: {folder / 'table.csv'}, {folder / 'table.md'}")
        open_jobs = [row for row in rows if row.state not in FINE]
        if open_jobs:
            print(
                f"lemlight: {len(open_jobs)} of {len(rows)} jobs are not done; the same command runs only those",
                file=sys.stderr,
            )
            sys.exit(2)


def expected_jobs(config: DictConfig) -> list[list[str]]:
    """List the overrides of every job of a grid, as Hydra's own sweeper makes them; empty for other sweepers."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return []
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*words, *config.hydra.overrides.task])
    if any(override.is_sweep_override() and not override.is_discrete_sweep() for override in overrides):
        return []
    batches = BasicSweeper.split_arguments(overrides, None)
    return [list(job) for batch in batches for job in batch]
