"""Work chains that the node's owner has approved: which, with which inputs, codes and options.

A command's inputs are held against the owner's JSON Schema on the node, when it is accepted; what the schema admits and
the ports of the work chain refuse ends the job, with the port named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator
from referencing import Registry

from aiida_byoc.contracts.problems import FieldError
from aiida_byoc.contracts.workchain import WorkchainWorkload

__all__ = ["Workchain"]

_MOST_ERRORS = 20

Port = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]


class Workchain(BaseModel):
    """One approved work chain.

    Attributes:
        inputs: JSON Schema (2020-12) of `workload.inputs`. It must be closed: AiiDA's own inputs, such as text that is
            put into job scripts, are ports like any other.
        codes: labels of the codes that inputs may name.
        defaults: inputs that the node adds where the command has none, by dotted port.
        options: dotted ports of scheduler options (`metadata.options` of a calculation) into which the node writes
            the command's shape and queue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    inputs: dict[str, Any]
    codes: list[str] = []
    defaults: dict[Port, Any] = {}
    options: list[Port] = []

    @field_validator("inputs")
    @classmethod
    def _schema_is_closed(cls, schema: dict[str, Any]) -> dict[str, Any]:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"is no JSON Schema: {error.message[:200]}") from error
        if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
            raise ValueError('must have type = "object" and additionalProperties = false')
        if outside := next(_references(schema), None):
            raise ValueError(f"refers to {outside!r} outside of itself")
        return schema

    def refusals(self, workload: WorkchainWorkload) -> list[FieldError]:
        """What the schema has against the inputs; no value is repeated."""
        validator = Draft202012Validator(self.inputs, registry=Registry())  # which fetches nothing
        found = sorted(
            validator.iter_errors(workload.inputs), key=lambda error: list(map(str, error.path))
        )
        return [each for error in found for each in _told(error)][:_MOST_ERRORS]


def _references(schema: Any) -> Iterator[str]:
    """Where the schema refers to another document."""
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str) and not target.startswith("#"):
            yield target
        for part in schema.values():
            yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _told(error: Any) -> Iterator[FieldError]:
    place = ".".join(["workload.inputs", *(str(part)[:64] for part in error.absolute_path)])
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        for name in missing:
            yield FieldError(field=f"{place}.{name}", message="is missing", remedy="add the input")
    elif error.validator == "additionalProperties":
        known = ", ".join(sorted(error.schema.get("properties", {}))) or "none"
        message = "holds an input that the node's policy does not know"
        yield FieldError(field=place, message=message, remedy=f"use only: {known}")
    else:
        message = f"breaks the rule {error.validator} of the node's policy"
        remedy = f"{error.validator}: {error.validator_value}"[:300]
        yield FieldError(field=place, message=message, remedy=remedy)
