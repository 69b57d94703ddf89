"""Types of arguments with their limits, and a check of them at the call: the constructor alone knows its arguments."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

from pydantic import ConfigDict, Field, ValidationError, validate_call

from lemlight.errors import LemlightError

Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Check the arguments of every call against the annotations; LemlightError names all that do not fit."""
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    validated = validate_call(config=strict)(function)

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            name = function.__qualname__.removesuffix(".__init__")
            lines = [f"{'.'.join(map(str, one['loc']))}={one['input']}: {plain_message(one)}" for one in error.errors()]
            raise LemlightError(f"{name}: {'; '.join(lines)}") from None

    return call


def plain_message(details: object) -> str:
    """The message of one mistake that pydantic found, as we say it."""
    message = str(dict(details)["msg"])  # type: ignore[call-overload]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
