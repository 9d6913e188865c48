"""PEFT's methods by name, and what a recipe says about one checked against its config class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from ftk import UserError, did_you_mean
from ftk_plugins.adaptations.peft.options import REFUSED

OURS = {
    "target_modules": "it follows from adaptation.targets",
    "exclude_modules": "write what is left in adaptation.targets",
    "layers_to_transform": "write the layers in adaptation.targets, as in layers.[0-3].*",
    "layers_pattern": "write the layers in adaptation.targets, as in layers.[0-3].*",
    "modules_to_save": "write it beside `method`",
    "bias": 'biases trained beside the method are no part of it; use the adaptation `full` with train = ["*bias"]',
    **dict.fromkeys(
        ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "peft_type", "peft_version",
         "revision", "target_parameters", "task_type"),
        "it follows from the model",
    ),
}  # fmt: skip
"""Fields of PEFT's configs that a recipe does not set there, and what it does in their place."""


def find_method(name: str) -> tuple[type[BaseTuner], type[PeftConfig]]:
    """The tuner and the config class of a method of the installed PEFT.

    Raises:
        UserError: it has none of this name.
    """
    kinds = {kind.value.lower(): kind for kind in PEFT_TYPE_TO_TUNER_MAPPING}
    if name not in kinds:
        raise UserError(
            f"adaptation.method: the installed PEFT has no method {name!r}", did_you_mean(name, kinds.keys() - REFUSED)
        )
    return PEFT_TYPE_TO_TUNER_MAPPING[kinds[name]], PEFT_TYPE_TO_CONFIG_MAPPING[kinds[name]]


def check_config(method: str, config: type[PeftConfig], values: Mapping[str, Any]) -> None:
    """Hold ``values`` against the fields of PEFT's config class and their types.

    Raises:
        UserError: a field does not exist, is not the recipe's to set, or gets a value of another type.
    """
    fields = {field.name for field in dataclasses.fields(config)}
    hints = get_type_hints(config)
    for key, value in values.items():
        place = f"adaptation.config.{key}"
        if key not in fields:
            raise UserError(f"{place}: PEFT's {method} has no such option", did_you_mean(key, fields - OURS.keys()))
        if key in OURS:
            raise UserError(f"{place}: is not set there", OURS[key])
        try:
            TypeAdapter(hints[key]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            kinds = {complaint["msg"][0].lower() + complaint["msg"][1:] for complaint in error.errors()}
            raise UserError(f"{place}: {'; or '.join(sorted(kinds))}, not {value!r}") from error
        except PydanticSchemaGenerationError:
            continue  # a class of PEFT's own; its constructor will say
