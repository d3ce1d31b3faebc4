"""The fence of an array: whichever of its elements comes first takes it, for all of them."""

import time

from . import FENCE, OWNER
from .light import os, read, suppress, write

_PATIENCE = 30
"""Seconds that who was first may take to write the array's id into the fence."""


def owns_the_array():
    """Take the fence for this array, and close its directory to others; whether it is this array's."""
    own = os.environ.get("SLURM_ARRAY_JOB_ID", "")
    path = os.path.join(FENCE, OWNER)
    with suppress(FileExistsError):
        os.mkdir(FENCE)
        os.chmod(os.curdir, 0o700)  # what is in here is the tenant's, and what we write is believed
        write(path, own + "\n")
        from .packed import pack

        pack()  # for all elements that come later
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            owner = read(path)
            if owner.endswith("\n"):
                return owner.strip() == own
        time.sleep(0.05)
    return False
