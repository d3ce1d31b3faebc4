"""The completion record."""

from . import RECORD
from .light import dumps, write


def write_record(record, path=RECORD, durable=True):
    """Write it so that it is either whole or absent, if `durable` also after a power cut; return its text."""
    text = dumps(record)
    write(path, text, durable)
    return text
