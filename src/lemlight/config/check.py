"""From Hydra's composed config to a checked one, or one error that names every wrong key and its remedy."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from lemlight.errors import LemlightError

Schema = TypeVar("Schema", bound=BaseModel)


def check(config: DictConfig | Mapping[str, Any], schema: type[Schema], where: str = "the configuration") -> Schema:
    """Return `config` as a `schema`.

    Raises:
        LemlightError: lists every unknown key, wrong type and impossible value, each with its remedy.
    """
    values: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else dict(config)
    missing = [f"{key}: a value is needed; give {key}=..." for key in _missing_keys(values)]
    if missing:
        raise LemlightError(_listing(where, missing))
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise LemlightError(_listing(where, _lines(error, values))) from None


def _listing(where: str, lines: Sequence[str]) -> str:
    return f"{where} cannot be used:\n" + "\n".join(f"  {line}" for line in dict.fromkeys(lines))


def _missing_keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            keys += _missing_keys(value, f"{prefix}{key}.")
        elif value == "???":
            keys.append(f"{prefix}{key}")
    return keys


def _lines(error: ValidationError, values: Any) -> list[str]:
    """A line for each wrong key: the members of a union ("a number, or auto") complain one by one."""
    lines: dict[str, str] = {}
    for details in error.errors(include_url=False):
        line = _line(details, values)
        start, _, rest = line.partition(": ")
        if start in lines and lines[start] != line:
            lines[start] = lines[start].replace(
                "; set ", f" or {rest.partition('; ')[0].removeprefix('must be ')}; set "
            )
        else:
            lines[start] = line
    return list(lines.values())


def _line(details: Mapping[str, Any], values: Any) -> str:
    path, siblings = _path_in(values, details["loc"])
    key = ".".join(path) or "the whole"
    kind, message, got = details["type"], details["msg"], details["input"]
    if kind == "extra_forbidden":
        return f"{key}: there is no such key{_suggestion(path[-1], [s for s in siblings if s != path[-1]])}; remove it"
    if kind == "missing":
        return f"{key}: the key is missing; give {key}=..."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = details.get("ctx", {}).get("expected_tags", "")
        return f"{key}.name: must be one of {expected}; choose with {key}=..."
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "value_error":
        return f"{key}: {message}" if path else message
    return f"{key}={got}: {message}; set {key}=..."


def _path_in(values: Any, location: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The location as keys of the config: pydantic adds the tags and types of unions, which are no keys."""
    path: list[str] = []
    siblings: list[str] = []
    here = values
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, Mapping) and (part in here or (last and _is_key(part))):
            path.append(str(part))
            siblings = [str(key) for key in here]
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int):
            path.append(str(part))
            here = here[part]
    return path, siblings


def _is_key(part: Any) -> bool:
    return isinstance(part, str) and part.isidentifier()


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
