"""Parts built from `_target_`: checked against their constructors before any work, then built by Hydra.

A part is a mapping with `_target_` and the arguments of that class or function. What only the run knows (`channels` of
the features, `train_labels`, ...) is passed by name to a part whose constructor has an argument of that name.
"""

import difflib
import importlib
import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lemlight.arguments import plain_message
from lemlight.errors import LemlightError

Part = dict[str, Any]
TARGET, PARTIAL = "_target_", "_partial_"
FILES: dict[str, str] = {}  # the config file of each group, for messages; the command fills it

# arguments that the run itself passes to the parts of a group, and keys of a group that are not its constructor's
PASSED = {
    "pooling": {"channels"},
    "loss": {"train_labels"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "total_steps", "epochs"},
    "trainer": {"callbacks", "logger", "plugins", "default_root_dir"},
    "callbacks": {"run_config"},
    "logger": {"label", "sweep_group", "labels"},
}
BESIDE = {
    "backbone": {"frozen", "gradient_checkpointing"},
    "dataset": {"prepare", "split"},
    "optimizer": {"lr_backbone", "lr_head", "layer_decay"},
    "scheduler": {"interval"},
}
# what the config of a checkpoint may build without the user's trust, by group
TRUSTED = {
    "backbone": r"lemlight\.models\.(backbones|timm_backbone)\.\w+",
    "pooling": r"lemlight\.models\.(pooling|gmic)\.\w+",
    "loss": r"lemlight\.models\.losses\.\w+",
    "optimizer": r"torch\.optim\.\w+",
    "scheduler": r"(lemlight\.training\.optimizers|torch\.optim\.lr_scheduler)\.\w+",
    "dataset": r"lemlight\.data\.(datasets\.\w+|phantom\.writer)\.\w+",
    "augmentation": r"lemlight\.data\.augment\.\w+",
    "trainer": r"pytorch_lightning\.Trainer",
    "callbacks": r"(lemlight\.training|pytorch_lightning)\.callbacks\.\w+",
    "logger": r"(lemlight\.training\.logging|pytorch_lightning\.loggers)\.\w+",
    "localization": r"lemlight\.localization\.\w+\.\w+",
}

DEPTHS = {"callbacks": 3, "logger": 3, "localization": 4}  # keys down to a `_target_`, where parts stand in a dict


def locate(target: object, where: str) -> Any:
    """Import the class or function that a `_target_` names; LemlightError where there is none."""
    try:
        found = _imported(str(target))
    except Exception as error:  # an own module can fail in any way
        hint = did_you_mean(error.name, dir(error.obj)) if isinstance(error, AttributeError) and error.name else ""
        raise LemlightError(
            f"{where}._target_={target}: {type(error).__name__}: {error}{hint}; give package.module.Class of a package "
            "that is installed or in a folder of PYTHONPATH"
        ) from error
    if not callable(found):
        raise LemlightError(f"{where}._target_={target}: is no class or function, but {type(found).__name__}")
    return found


def _imported(target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module or "." not in module:  # a package, or one that the module itself needs
            raise
        return getattr(_imported(module), name)  # of a class


def parts_of(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Part]]:
    """Go through the parts of a config with the keys that lead there; those inside of other parts, too."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            if TARGET in value:
                yield (*path, key), dict(value)
            yield from parts_of(value, (*path, key))


def part_problems(config: Mapping[str, Any]) -> list[str]:
    """List all that the constructors of the parts of a config would not take; imports them."""
    problems: list[str] = []
    for path, part in parts_of(config):
        where, group = ".".join(path), path[0]
        try:
            target = locate(part[TARGET], where)
        except LemlightError as error:
            problems.append(f"{error}{in_file(group)}")
            continue
        beside = BESIDE.get(group, set()) | {TARGET, PARTIAL}
        given = {key: value for key, value in part.items() if key not in beside}
        found = argument_problems(target, given, where, PASSED.get(group, set()), BESIDE.get(group, set()))
        problems += [f"{problem}{in_file(group)}" for problem in found]
    return problems


def in_file(where: str) -> str:
    """The config file of the group that a key begins with, in brackets; empty where it is not known."""
    file = FILES.get(where.split(".")[0])
    return f" ({file})" if file else ""


def argument_problems(
    target: Any, given: Mapping[str, Any], where: str, passed: Iterable[str] = (), beside: Iterable[str] = ()
) -> list[str]:
    """List the arguments that a class or function does not take: unknown, missing, of a wrong type, out of range."""
    parameters = _parameters(target)
    if not parameters:
        return []
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    named = {name: one for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    hints = _hints(target)
    problems = []
    for name, value in given.items():
        key = f"{where}.{name}"
        if name not in named:
            if not anything:
                problems.append(f"{key}: there is no such key{did_you_mean(name, [*named, *beside])}; remove it")
        elif name in hints:
            problems += [f"{key}={value}: {message}; set {key}=..." for message in _type_problems(value, hints[name])]
    for name, one in named.items():
        if one.default is one.empty and name not in given and name not in passed:
            problems.append(f"{where}.{name}: a value is needed; give {where}.{name}=...")
    return problems


def did_you_mean(word: str, known: Iterable[str], several: int = 1) -> str:
    """A hint at the nearest known words, in brackets; empty where none is near."""
    close = difflib.get_close_matches(word, list(known), n=several)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # some classes written in C have none
        return {}


def _hints(target: Any) -> dict[str, Any]:
    """The annotations of the arguments; those that cannot be understood are left out."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception:  # names that exist for a type checker alone
        return {}


def _type_problems(value: Any, annotation: Any) -> list[str]:
    """What is wrong with a value of a config for an annotation: a list may stand for a tuple, a text for a path."""
    if isinstance(value, Mapping) and TARGET in value:
        return []
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        kinds = {one["type"] for one in found}
        if "needs_python_object" not in kinds and kinds != {"is_instance_of"}:
            return [
                "must be " + " or ".join(dict.fromkeys(plain_message(one).removeprefix("must be ") for one in found))
            ]
    except Exception:  # a type or a value that no file can hold: the constructor decides
        pass
    return []


def build(part: Mapping[str, Any], where: str, *args: Any, kind: Any = object, **passed: Any) -> Any:
    """Build a part, with those of the `passed` arguments that its constructor has.

    Raises:
        LemlightError: that fails, or gives no instance of `kind`.
    """
    from hydra.utils import instantiate

    parameters = _parameters(locate(part.get(TARGET), where))
    more = {name: value for name, value in passed.items() if name in parameters}
    try:
        built = instantiate({**part, PARTIAL: True}, _convert_="all")(*args, **more)
    except LemlightError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) and "instantiat" in str(error) else error
        if isinstance(cause, LemlightError):
            raise cause from None
        raise LemlightError(
            f"{where}: {part[TARGET]} failed in its constructor with {type(cause).__name__}: {cause}{in_file(where)}"
        ) from error
    if not isinstance(built, kind):
        name = getattr(kind, "__name__", kind)
        raise LemlightError(f"{where}: {part[TARGET]} gives no {name}, but {type(built).__name__}{in_file(where)}")
    return built


def check_trust(config: Mapping[str, Any], trust: Sequence[str], source: str) -> None:
    """Refuse what a config from a file would import or run beyond lemlight's own parts and the modules in `trust`.

    Raises:
        LemlightError: names the module, and how to trust it.
    """
    for path, value in _leaves(config):
        key = path[-1] if path else ""
        if key.startswith("_") and key not in (TARGET, PARTIAL):
            raise LemlightError(f"{source} is refused: {'.'.join(path)} is no argument of a part of lemlight")
        if isinstance(value, str) and "${" in value:
            raise LemlightError(f"{source} is refused: {'.'.join(path)} is an interpolation, not a value")
        if key == TARGET:
            _check_target(path, value, trust, source)


def _check_target(path: tuple[str, ...], target: Any, trust: Sequence[str], source: str) -> None:
    where, group = ".".join(path[:-1]), path[0]
    if not isinstance(target, str):
        raise LemlightError(f"{source} is refused: {where}._target_ is no name of a class")
    if any(target == module or target.startswith(f"{module}.") for module in trust):
        return
    if len(path) == DEPTHS.get(group, 2) and re.fullmatch(TRUSTED.get(group, "(?!)"), target):
        try:
            found = locate(target, where)
        except LemlightError as error:
            raise LemlightError(f"{source} is refused: {error}") from error
        home, module = str(getattr(found, "__module__", "")), target.rpartition(".")[0]
        at_home = home == module if module.startswith("lemlight.") else home.split(".")[0] == module.split(".")[0]
        if at_home and not found.__name__.startswith("_"):  # not what a module of ours has imported from elsewhere
            return
    root = target.split(".")[0]
    if root in ("lemlight", "torch", "pytorch_lightning"):
        raise LemlightError(f"{source} is refused: {where}._target_={target} is no {group} of lemlight")
    raise LemlightError(
        f"{source} holds a part from outside of lemlight ({where}._target_={target}), which could run code on this "
        f"machine; if you know the module {root}, add trust=[{root}]"
    )


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield from _leaves(member, (*path, str(key)))
            if str(key).startswith("_") and isinstance(member, Mapping | list):
                yield (*path, str(key)), None
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _leaves(member, path)
    else:
        yield path, value


class Settings(BaseModel):
    """The settings of a command: no key but those listed, no value of another type, never changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Schema = typing.TypeVar("Schema", bound=Settings)


def check_settings(values: Mapping[str, Any], schema: type[Schema], where: str = "the configuration") -> Schema:
    """Check plain values against the settings of a command, and its parts against their constructors.

    Raises:
        LemlightError: lists every unknown key, wrong type and impossible value, each with its remedy.
    """
    problems = [f"{key}: a value is needed; give {key}=..." for key in _missing(values)]
    if not problems:
        try:
            settings = schema.model_validate(values)
        except ValidationError as error:
            problems = _settings_problems(error, schema)
        else:
            problems = part_problems(values) + section_problems(values)
            if not problems:
                return settings
    lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
    raise LemlightError(f"{where} cannot be used:\n{lines}")


def section_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with sections that are no parts: localization, rates, and `prepare` and `split` of a data set."""
    dataset, optimizer, localization = (values.get(key) for key in ("dataset", "optimizer", "localization"))
    problems: list[str] = []
    if localization:
        from lemlight.localization.choice import LocalizationSettings

        given = {key: value for key, value in localization.items() if key != "methods"}
        problems += argument_problems(LocalizationSettings, given, "localization", ("methods",))
    if optimizer:
        from lemlight.training.optimizers import parameter_groups

        rates = {key: value for key, value in optimizer.items() if key in BESIDE["optimizer"]}
        problems += argument_problems(parameter_groups, rates, "optimizer", ("classifier", "weight_decay"))
    if not dataset:
        return problems
    from lemlight.data.preparing.store import PrepareSettings
    from lemlight.data.splits import check_split, split_table

    if TARGET not in dataset:
        return [*problems, "dataset._target_: a function that returns an image table is needed; choose dataset=..."]
    absent = [name for name in ("prepare", "split") if not isinstance(dataset.get(name), Mapping)]
    if absent:
        return [*problems, f'dataset.{absent[0]}: missing; start the file with `defaults: ["/shared/dataset@_here_"]`']
    problems += argument_problems(PrepareSettings, dataset["prepare"], "dataset.prepare")
    wrong = argument_problems(split_table, dataset["split"], "dataset.split", ("table",))
    if not wrong:
        try:
            check_split(**dataset["split"])
        except LemlightError as error:
            wrong = [str(error)]
    return problems + wrong


def _missing(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            keys += _missing(value, f"{prefix}{key}.")
        elif value == "???":
            keys.append(f"{prefix}{key}")
    return keys


def _settings_problems(error: ValidationError, schema: type[Settings]) -> list[str]:
    """A line for each wrong key."""
    lines = []
    for one in error.errors(include_url=False):
        key = ".".join(map(str, one["loc"]))
        if one["type"] == "extra_forbidden":
            model: Any = schema
            for part in one["loc"][:-1]:
                model = model.model_fields[part].annotation
            lines.append(
                f"{key}: there is no such key{did_you_mean(str(one['loc'][-1]), model.model_fields)}; remove it"
            )
        elif one["type"] == "missing":
            lines.append(f"{key}: a value is needed; give {key}=...")
        else:
            lines.append(f"{key}={one['input']}: {plain_message(one)}; set {key}=...")
    return lines
