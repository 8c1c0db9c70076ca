"""The base of every specification: immutable, closed to unknown fields, hashable by content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from dms_bench.config.described import descriptions
from dms_bench.config.problems import UNKNOWN, show
from dms_bench.errors import close, nearest

#: Fields that tell the members of a union apart.
_TAGS = ("kind", "name")


@dataclass(frozen=True)
class Written:
    """What validation is told of a trial that somebody has written, and not of one that is read back."""

    #: As it stands, so that the recipes beside a task with mistakes are read as its own.
    task: Any


class Spec(BaseModel):
    """A piece of configuration.

    Unknown fields are errors: a misspelt option must never be silently ignored. So are `true` and
    `false` for a number, and numbers that are not finite.

    The string right below a field describes it, to editors (`dms-bench schema`) and readers (`dms-bench ls`, `make
    docs`), and is in no hash.
    """

    written_beside: ClassVar[tuple[str, ...]] = ()
    """What a file has beside the fields, and is read before them: to be suggested like these."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def content_hash(self, length: int = 12) -> str:
        """Return a hash of the content that is stable between processes and field orders."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:length]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add to the JSON Schema what the fields are; a kind of something is titled as a suite names it."""
        schema = handler(core_schema)
        whole = handler.resolve_ref_schema(schema)
        properties = whole.get("properties", {})
        tags = [properties[name]["const"] for name in _TAGS if "const" in properties.get(name, {})]
        whole["title"] = tags[0] if tags else cls.__name__
        for name, text in descriptions(cls).items():
            if text and name in properties:
                properties[name]["description"] = text
        return schema

    @model_validator(mode="wrap")
    @classmethod
    def _strictly(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Say which field an unknown one was meant to be, and refuse booleans for numbers.

        Pydantic says only that a field is not permitted; here its neighbours are known.
        """
        if not isinstance(value, dict):
            return handler(value)
        fields = cls.model_fields
        offered = [*(name for name, field in fields.items() if not _is_hidden(field)), *cls.written_beside]
        wrong = [
            _detail("unknown_field", f"{UNKNOWN}; {nearest(str(name), offered)}", (str(name),), given)
            for name, given in value.items()
            if name not in fields
        ]
        try:
            result = handler({name: given for name, given in value.items() if name in fields})
        except ValidationError as error:
            if not wrong:
                raise
            # A misspelt field is probably the one that is missing: say it once.
            meant = {choice for name in value if name not in fields for choice in close(str(name), offered)}
            wrong += [
                _again(error)
                for error in error.errors()
                if error["type"] != "missing" or len(error["loc"]) > 1 or error["loc"][0] not in meant
            ]
        else:
            wrong += [
                _detail("boolean", f"{show(given)} is not a number", (name,), given)
                for name, given in value.items()
                if isinstance(given, bool) and type(getattr(result, name, None)) in (int, float)
            ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return result


def _is_hidden(field: FieldInfo) -> bool:
    """Whether a field is filled in, and not to be written."""
    return any(isinstance(entry, SkipJsonSchema) for entry in field.metadata)  # type: ignore[misc]


def _detail(kind: str, text: str, location: tuple[int | str, ...], given: Any, context: Any = None) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, text, context), loc=location, input=given)


def _again(error: Any) -> InitErrorDetails:
    """Return an error in the form in which it can be raised again."""
    return _detail(error["type"], error["msg"], error["loc"], error["input"], error.get("ctx"))
