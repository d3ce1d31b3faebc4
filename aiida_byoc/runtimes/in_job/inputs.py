"""Inputs that lie outside of the container's directory: found, checked, and given a place to be mounted from.

AiiDA has put some into their places already; for the others a link is made there. The container sees each below /work,
and cannot change it.
"""

import os
import stat

from . import INPUTS, WORK

_BLOCK = 1 << 20


def place_inputs(inputs):
    """Have every input in its place; return why one of them cannot be had, or `None`.

    Args:
        inputs: objects as of `workflows/inputs.py`.
    """
    os.makedirs(INPUTS, exist_ok=True)
    for each in inputs:
        try:
            reason = _place(each)
        except OSError as error:
            reason = "cannot be read: {}".format(error.strerror)
        if reason:
            return "{} {}".format(each["name"], reason)
    return None


def place_for_others(inputs, place):
    """Have every input placed below a directory; return them as who takes them from there has them, and the reason."""
    here = os.getcwd()
    theirs = [
        each if each.get("source") else dict(each, source=os.path.join(here, each["place"]))
        for each in inputs
    ]
    os.chdir(place)
    try:
        os.mkdir(WORK)
        reason = place_inputs(theirs)
    except OSError as error:
        reason = "the inputs cannot be placed: {}".format(error.strerror)
    finally:
        os.chdir(here)
    placed = [
        {
            "name": each["name"],
            "place": each["place"],
            "source": os.path.join(place, each["place"]),
        }
        for each in inputs
    ]
    return placed, reason


def _place(wanted):
    source = wanted.get("source")
    path = os.path.realpath(source or wanted["place"])
    within = wanted.get("within")
    if within is not None and not any(_is_below(path, root) for root in within):
        return "leads out of the directories that the node's policy lets jobs read"
    if not os.path.exists(path):
        return "is not there"
    status = os.stat(path)
    is_directory = stat.S_ISDIR(status.st_mode)
    if is_directory and (within is None or wanted.get("sha256")):
        return "is a directory, not a file"
    if not is_directory:
        reason = _wrong_file(path, status, wanted)
        if reason:
            return reason
    if not _make_mount_point(wanted["name"], is_directory):
        return "has no place: a link or a file is in its way"
    if source:
        os.symlink(path, wanted["place"])
    return None


def _wrong_file(path, status, wanted):
    if not stat.S_ISREG(status.st_mode):
        return "is neither a file nor a directory"
    if wanted.get("size") not in (None, status.st_size):
        return "has another size than when its job left it"
    with open(path, "rb") as file:
        if not wanted.get("sha256"):
            return None
        import hashlib

        digest = hashlib.sha256()
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return None if digest.hexdigest() == wanted["sha256"] else "has another sha256"


def _is_below(path, root):
    return (path + "/").startswith(os.path.realpath(root) + "/")


def _make_mount_point(name, is_directory):
    """Make what the runtime mounts over; not through links, which an earlier attempt may have left."""
    *parents, last = name.split("/")
    place = WORK
    for part in parents:
        place = os.path.join(place, part)
        if not _is_real(place, os.mkdir, stat.S_ISDIR):
            return False
    place = os.path.join(place, last)
    if is_directory:
        return _is_real(place, os.mkdir, stat.S_ISDIR)
    return _is_real(place, _make_file, stat.S_ISREG)


def _is_real(place, make, is_kind):
    try:
        make(place)
    except FileExistsError:
        return is_kind(os.lstat(place).st_mode)
    return True


def _make_file(place):
    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
