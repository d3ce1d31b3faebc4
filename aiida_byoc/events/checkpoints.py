"""Checkpoints as AiiDA writes and reads them, with libyaml: its own emitter and parser are of Python.

A job has some fifteen checkpoints, each with the inputs as a document of their own (measured for one of 3 kB: 6.2 ms
to write, 0.9 ms with libyaml). What is written is AiiDA's words in other line breaks, and its loader reads it.
"""

from __future__ import annotations

from typing import Any

import yaml
from aiida.engine import Process
from aiida.engine.persistence import get_object_loader
from aiida.orm.utils.serialize import AiiDADumper, AiiDALoader
from plumpy.exceptions import PersistenceError
from plumpy.persistence import Bundle, LoadSaveContext
from yaml.constructor import Constructor
from yaml.cyaml import CEmitter, CParser
from yaml.representer import Representer
from yaml.resolver import Resolver

__all__ = ["dump", "load", "save"]


class _Dumper(CEmitter, AiiDADumper):
    """AiiDA's representations, emitted by libyaml; as `yaml.CDumper` does it for YAML's own."""

    def __init__(self, stream: Any, **options: Any) -> None:
        of_data = {
            name: options.pop(name)
            for name in ("default_style", "default_flow_style", "sort_keys")
            if name in options
        }
        CEmitter.__init__(self, stream, **options)
        Representer.__init__(self, **of_data)
        Resolver.__init__(self)


class _Loader(CParser, AiiDALoader):
    """AiiDA's constructors, fed by libyaml."""

    def __init__(self, stream: Any) -> None:
        CParser.__init__(self, stream)
        Constructor.__init__(self)
        Resolver.__init__(self)


def dump(data: Any) -> str:
    """As `aiida.orm.utils.serialize.serialize`."""
    text: str = yaml.dump(data, Dumper=_Dumper, default_flow_style=False)
    return text


def load(text: str) -> Any:
    """As `deserialize_unsafe`: whoever writes to AiiDA's tables runs code in its workers."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506


def save(process: Process) -> None:
    """As AiiDA's persister does it.

    Raises:
        PersistenceError: the process cannot be saved.
    """
    try:
        bundle = Bundle(process, LoadSaveContext(loader=get_object_loader()))
        process.node.set_checkpoint(dump(bundle))
    except Exception as error:
        raise PersistenceError(f"cannot save a checkpoint of {process}") from error
