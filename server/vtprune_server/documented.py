"""Settings in the OpenAPI schema, with the keys and descriptions of their own fields.

A body accepts any object for them. They are validated where a chat completion's settings are, so
the error sentences are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model
from pydantic_core import CoreSchema

from vllm_pruner.settings.setting import settings_of

__all__ = ["Documented", "of_request"]


@dataclass(frozen=True, slots=True)
class Documented:
    """In `Annotated[dict[str, Any], Documented(Model)]`: documents the model's schema without
    validating against it."""

    model: type[BaseModel]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(self.model.__pydantic_core_schema__)


@cache
def of_request(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model of a request's settings: any keys of `model`, each possibly null."""
    hints = get_type_hints(model, include_extras=True)
    fields: dict[str, Any] = {
        setting.key: (hints[setting.key] | None, Field(None, description=setting.about))
        for setting in settings_of(model)
    }
    return create_model(
        "RequestSettings",
        __config__=ConfigDict(extra="forbid"),
        __doc__="Settings of one request; keys that are left out or null keep the server's value.",
        **fields,
    )
