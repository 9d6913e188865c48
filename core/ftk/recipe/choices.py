"""A key of a recipe that names one of several tables: ``"name"`` for short, ``{ use = "name", ... }`` in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Named:
    """Annotates a union of :class:`ftk.plugin.options.Options` that ``use`` tells apart.

    Attributes:
        default: the member that a table without ``use`` is read as.
    """

    default: str

    def expand(self, value: Any) -> Any:
        """A name as a table, and a table without ``use`` as the default's."""
        if isinstance(value, str):
            return {"use": value}
        return {"use": self.default, **value} if isinstance(value, dict) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        expand: Callable[[Any], Any] = self.expand
        return core_schema.no_info_before_validator_function(expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        tables = handler(schema)
        return {"anyOf": [{"enum": list(tables["discriminator"]["mapping"])}, *tables["oneOf"]]}
