"""The names of a sweep's folders for conf/train.yaml, as OmegaConf resolvers."""

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from lemlight.sweeps.names import job_name, sweep_name


def register_resolvers() -> None:
    """Make `sweep_name`, `sweep_overrides` and `job_name` known to OmegaConf; again does nothing.

    Those of the sweep are resolved once, in the config of the whole command: Hydra hands what is cached there to the
    config of every job, whose own overrides are others.
    """
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_overrides", _sweep_overrides, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("job_name", _job_name, replace=True)


def overrides_of_the_sweep(config: DictConfig) -> list[str]:
    """Find the overrides of the command that started the sweep of a job with this config; those of one job are others.

    Empty where the folders of the sweep have names of the user's own, so that they were not needed.
    """
    cached = OmegaConf.get_cache(config).get("sweep_overrides", {})
    return next((list(overrides) for overrides in cached.values()), [])


def _sweep_name(overrides: Sequence[str], params: Mapping[str, object] | None) -> str:
    return sweep_name(list(overrides), list(params or ()))


def _sweep_overrides(overrides: Sequence[str]) -> list[str]:
    return list(overrides)


def _job_name(overrides: Sequence[str], of_the_sweep: Sequence[str], params: Mapping[str, object] | None) -> str:
    return job_name(list(overrides), list(of_the_sweep), list(params or ()))
