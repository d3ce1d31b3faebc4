"""The completion record."""

from . import RECORD
from .light import dumps, os


def write_record(record, path=RECORD, durable=True):
    """Write it so that it is either whole or absent, if `durable` also after a power cut; return its text."""
    temporary, text = path + ".tmp", dumps(record)
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(temporary, path)
    return text
