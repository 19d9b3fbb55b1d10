"""Validate data from outside, with pydantic's errors in our own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vllm_pruner import methods
from vllm_pruner.methods import foreign
from vllm_pruner.methods.base import Method, Options
from vllm_pruner.settings import advice
from vllm_pruner.settings.errors import ConfigError, SettingError

__all__ = ["check_method_name", "parse_options", "unknown", "validate"]

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: object, prefix: str = "") -> Model:
    """Return the validated model.

    Args:
        model: the class to validate against.
        data: the data, from outside.
        prefix: prefix of the keys in an error.

    Raises:
        ConfigError: the first fault.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _fault(error.errors(include_url=False)[0], model, prefix) from None


def parse_options(method: Method, options: Mapping[str, object]) -> Options:
    """Validate `options` against the method's own model.

    Raises:
        ConfigError: the first fault.
        MethodFault: a validator of another package's method raised something else.
    """
    try:
        return validate(method.options, dict(options), prefix="options.")
    except SettingError as error:
        option = error.key.removeprefix("options.")
        if option in options and option not in method.options.model_fields:
            error.fault = f" but {method.name} has no such option"
            error.advice = advice.of_option(_owners(option)) or error.advice
        raise
    except ConfigError:
        raise
    except Exception as error:
        names = methods.names() + methods.names(methods.VIDEO_GROUP)
        if method.name not in names or methods.package_of(method.name) is None:
            raise
        raised = f"raised {type(error).__name__}: {error} in its options"
        raise foreign.fault(method.name, raised) from error


def _owners(option: str) -> list[str]:
    """Return which of our methods have an option."""
    own = methods.built_in()
    return [name for name in own if option in methods.get(name).options.model_fields]


def check_method_name(name: str, key: str = "method", videos: bool = False) -> None:
    """Refuse the name of a method that is not installed.

    Args:
        name: the name.
        key: the key that had it, for the error.
        videos: whether methods for videos are allowed, in addition to those for images.

    Raises:
        SettingError: no such method is installed; the error lists those that are.
    """
    names = methods.names() + (methods.names(methods.VIDEO_GROUP) if videos else [])
    if name not in names:
        rate = advice.VIDEO_RATE if videos else advice.RATE
        raise SettingError(
            key, repr(name), ", ".join(names), advice=advice.of_name(name, names, rate)
        )


def unknown(key: str, value: object, names: Sequence[str]) -> SettingError:
    """Return the error for a key that is none.

    Args:
        key: the key, dotted if it is inside another.
        value: its value, from outside.
        names: the keys that there are in its place.
    """
    hint = advice.of_key(key.rpartition(".")[2], value, names)
    allowed = ", ".join(names) or "none"
    return SettingError(key, repr(value), allowed, " but there is no such key", advice=hint)


def _fault(found: ErrorDetails, model: type[BaseModel], prefix: str) -> ConfigError:
    if found["type"] == "value_error":  # raised by one of our validators, or a method's
        error = found["ctx"]["error"]
        return error if isinstance(error, ConfigError) else ConfigError(str(error))
    key, value = prefix + ".".join(str(part) for part in found["loc"]), repr(found["input"])
    last, given = str(found["loc"][-1]), found["input"]
    if found["type"] == "extra_forbidden":
        return unknown(key, given, list(_model_at(model, found["loc"]).model_fields))
    hint = advice.of_value(last, given, found["type"], found.get("ctx", {}))
    return SettingError(
        key, value, None, f"; {found['msg'].replace('Input', 'it', 1)}", advice=hint
    )


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model, possibly nested in `model`, that lacks the last key of `path`."""
    for key in path[:-1]:
        inner = model.model_fields[str(key)].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel), path
        model = inner
    return model
