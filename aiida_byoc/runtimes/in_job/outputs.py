"""What the container left, out of its reach and measured."""

import hashlib
import os
import stat

from . import OUTPUTS, WORK


def keep_outputs(names):
    """Move each declared output out of the container's reach, then measure it; links and devices do not count."""
    kept, missing = [], []
    for name in names:
        source = os.path.join(WORK, name)
        inside = os.path.realpath(source) == os.path.join(os.path.realpath(WORK), name)
        try:
            regular = stat.S_ISREG(os.lstat(source).st_mode)
        except OSError:
            regular = False
        if not (inside and regular):
            missing.append(name)
            continue
        target = os.path.join(OUTPUTS, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.chmod(os.path.dirname(source), 0o700)  # a job may close its directories and files;
        os.rename(source, target)
        os.chmod(target, 0o600)  # they are ours, and to be read
        digest, size = hashlib.sha256(), 0
        with open(target, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
                size += len(block)
        kept.append({"name": name, "size": size, "sha256": digest.hexdigest()})
    return kept, missing
