"""The JSON Schema of gpubox.yaml, from the table of settings, for editors to complete and check by.

Pure. Says what the parser takes, as far as a schema can; the parser itself does not read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from gpubox.profile.config import PROFILE_NAME, TOP_LEVEL
from gpubox.profile.settings import SETTINGS

Schema: TypeAlias = dict[str, Any]

_VARIABLE = r"\$"  # a text with ${NAME} passes: an editor cannot know its value
_PROFILE = "#/definitions/profile"


def text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


def schema() -> Schema:
    """The schema of a whole file. Every key may be empty, or null."""
    settings, long_forms = _settings()
    word = _as_yaml({"anyOf": [{"type": "string"}, {"type": "null"}]})
    shapes = {
        "datasets": _named(word),
        # draft-07 ignores all that stands beside a $ref, so a description would be lost here
        "defaults": _mapping(
            {key: {"$ref": f"{_PROFILE}/properties/{key}"} for key in settings if key != "extends"}
        ),
        "slurm": _as_yaml({"enum": ["required", None]}),
        "profiles": _named({"$ref": _PROFILE})
        | {"propertyNames": {"pattern": f"^{PROFILE_NAME}$"}},
    }
    top = {key: {"description": help} | shapes.get(key, word) for key, help in TOP_LEVEL.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "gpubox.yaml",
        **_mapping(top),
        "patternProperties": {"^x-": {}},
        "definitions": {"profile": _mapping(settings), **long_forms},
    }


def _settings() -> tuple[dict[str, Schema], Schema]:
    """The schema of each setting, and the definitions of the long forms that they refer to."""
    shapes, long_forms = msgspec.json.schema_components(
        [setting.written | None for setting in SETTINGS], ref_template="#/definitions/{name}"
    )
    by_key = {
        setting.key: {"description": setting.help} | _as_yaml(shape)
        for setting, shape in zip(SETTINGS, shapes, strict=True)
    }
    return by_key, _as_yaml(long_forms)


def _mapping(keys: Mapping[str, Schema]) -> Schema:
    return {"type": ["object", "null"], "properties": keys, "additionalProperties": False}


def _named(value: Schema) -> Schema:
    return {"type": ["object", "null"], "additionalProperties": value}


def _as_yaml(part: Any) -> Any:
    """Turn a schema of texts into one of YAML's scalars: gpubox reads 8 and true as texts."""
    if isinstance(part, list | tuple):
        return [_as_yaml(item) for item in part]
    if not isinstance(part, dict):
        return part
    rest = {key: _as_yaml(value) for key, value in part.items()}
    if "properties" in part:
        return rest | {"additionalProperties": False}
    if part.get("type") == "boolean":
        return rest | _scalar("^(?:true|false)$")
    if part.get("type") != "string":
        return rest
    if words := rest.pop("enum", None):
        return rest | {"anyOf": [{"enum": words}, {"pattern": _VARIABLE}]}
    return rest | _scalar(part.get("pattern"))


def _scalar(pattern: str | None) -> Schema:
    """Texts that match the pattern, and numbers and booleans if it matches one as it is written.

    A few samples show whether it does.
    """
    if pattern is None:
        return {"type": ["string", "number", "boolean"]}
    takes = {text for text in ("-1", "0", "1", "1.5", "true") if re.fullmatch(pattern, text)}
    numbers = ["number"] if "1.5" in takes else ["integer"] if "1" in takes else []
    lowest = {} if "-1" in takes or not numbers else {"minimum": 0 if "0" in takes else 1}
    return {
        "type": ["string", *numbers, *(["boolean"] if "true" in takes else [])],
        "pattern": f"{pattern}|{_VARIABLE}",
        **lowest,
    }
