"""Types of arguments with their limits, and a check of them at the call: the constructor alone knows its arguments."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, ValidationError, validate_call

from lemlight.errors import LemlightError

Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Smoothing = Annotated[float, Field(ge=0, le=1000)]  # px; a filter is eight times as long
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]

Target = TypeVar("Target", bound=Callable[..., Any])


def checked(target: Target) -> Target:
    """Check the arguments of every call of a function, or of a class's constructor, against their annotations.

    LemlightError names all that do not fit.
    """
    if isinstance(target, type):
        setattr(target, "__init__", checked(vars(target)["__init__"]))  # noqa: B010 (for mypy)
        return target
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    validated = validate_call(config=strict)(target)

    @wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            names = list(signature(target).parameters)
            lines = []
            for one in error.errors():
                first, *rest = one["loc"]  # what is given by its place has a number
                place = [names[first] if isinstance(first, int) else first, *rest]
                lines.append(f"{'.'.join(map(str, place))}={one['input']}: {plain_message(one)}")
            raise LemlightError(f"{target.__qualname__.removesuffix('.__init__')}: {'; '.join(lines)}") from None

    return cast(Target, call)


def plain_message(details: object) -> str:
    """The message of one mistake that pydantic found, as we say it."""
    message = str(dict(details)["msg"])  # type: ignore[call-overload]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
