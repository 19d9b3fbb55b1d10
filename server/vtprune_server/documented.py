"""Settings in the OpenAPI: the keys and descriptions of the settings' own fields.

A body takes any object there. What is wrong with it is found where a chat completion's settings are
checked, in the same words.
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
    """In `Annotated[dict[str, Any], Documented(Model)]`: the schema of the model, none of its
    validation."""

    model: type[BaseModel]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(self.model.__pydantic_core_schema__)


@cache
def of_request(model: type[BaseModel]) -> type[BaseModel]:
    """Return what a request may say of a model of settings: any of its keys, or null for them."""
    hints = get_type_hints(model, include_extras=True)
    fields: dict[str, Any] = {
        setting.key: (hints[setting.key] | None, Field(None, description=setting.about))
        for setting in settings_of(model)
    }
    return create_model(
        "RequestSettings",
        __config__=ConfigDict(extra="forbid"),
        __doc__="Settings of one request; what is left out or null is the server's.",
        **fields,
    )
