"""A workload that is one container."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from aiida_byoc.contracts.base import PLAIN, Order
from aiida_byoc.contracts.files import InputFile, OutputFile, PromisedOutput, TextInput

__all__ = ["Checkpoint", "ContainerWorkload", "EnvironmentName", "Image", "check_names"]

_RESERVED_ENVIRONMENT = re.compile(
    r"^(LD_.*|PATH|PYTHON.*|BASH_ENV|ENV|IFS|BYOC_.*|SLURM_.*|SBATCH_.*|SINGULARITY.*|APPTAINER.*|.*_PROXY)$"
)


def _environment_name(value: str) -> str:
    if _RESERVED_ENVIRONMENT.match(value):
        raise ValueError("is reserved: the loader, the scheduler and the runtime use it")
    return value


EnvironmentName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$"),
    AfterValidator(_environment_name),
]


_IMAGE = (
    r"^(?=.{1,255}$)[a-z0-9]+(?:[._-][a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"
)


def _image(value: str) -> str:
    if not re.fullmatch(_IMAGE, value):
        raise ValueError(
            "must be repository@sha256:<64 hex> or repository:tag (OCI reference, no spaces)"
        )
    return value


Image = Annotated[
    str,
    Field(max_length=255, examples=["localhost/byoc/demo:1"]),
    AfterValidator(_image),
]


class Checkpoint(Order):
    """The program can be stopped and started anew: when it hears the signal it saves what the next attempt needs."""

    signal: Literal["USR1", "USR2", "TERM", "INT"] = "USR1"
    seconds_before: Annotated[
        int, Field(ge=1, le=65_535, description="before the end of the walltime, s")
    ] = 60


class ContainerWorkload(Order):
    """One container, run once per attempt, in `/work`, with nothing else of the machine but what it asks for here."""

    kind: Literal["container"]
    image: Image
    argv: Annotated[
        list[Annotated[str, Field(max_length=32 * 1024), PLAIN]],
        Field(min_length=1, max_length=256, description="program and arguments, passed literally"),
    ]
    env: Annotated[
        dict[EnvironmentName, Annotated[str, Field(max_length=32 * 1024), PLAIN]],
        Field(max_length=256),
    ] = {}
    inputs: Annotated[list[InputFile], Field(max_length=256)] = []
    outputs: Annotated[list[PromisedOutput], Field(max_length=64)] = []
    network: Annotated[
        Literal["none", "host"],
        Field(description="`host`: the machine's network, if the policy grants it in that queue"),
    ] = "none"
    checkpoint: Checkpoint | None = None

    @model_validator(mode="after")
    def _names_do_not_collide(self) -> ContainerWorkload:
        check_names(self.inputs, self.outputs)
        return self


def check_names(
    inputs: Sequence[InputFile], outputs: Sequence[PromisedOutput], *, texts_are_fixed: bool = False
) -> None:
    """Raise `ValueError` where two files of a container would be in each other's place.

    Args:
        texts_are_fixed: a text, too, cannot be changed.
    """
    promised = [file.name for file in outputs if isinstance(file, OutputFile)]
    for kind, names in (("inputs", [file.name for file in inputs]), ("outputs", promised)):
        if len(set(names)) != len(names):
            raise ValueError(f"{kind} must not name the same file twice")
        for name in names:
            if any(other.startswith(name + "/") for other in names):
                raise ValueError(f"{kind}: {name!r} is both a file and a directory")
    for file in inputs:
        is_fixed = texts_are_fixed or not isinstance(file, TextInput)
        if is_fixed and any(f"{name}/".startswith(f"{file.name}/") for name in promised):
            raise ValueError(f"outputs: {file.name!r} is an input, which the job cannot change")
