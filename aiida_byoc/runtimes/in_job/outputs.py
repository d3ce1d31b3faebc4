"""What the container left, out of its reach and measured: regular files of its own directory, within the limits."""

import os
import stat
import unicodedata

from . import IN_PLACE, OUTPUTS, WORK
from .globs import Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:  # without the import of `typing`, which every start of a job would pay for
    from typing import Any

_BLOCK = 1 << 20
_MOST_NAMED = 64
"""So many names of each kind of fault are told."""
_MOST_LETTERS = 512
_KINDS = (
    (stat.S_ISLNK, "is a symbolic link"),
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a FIFO"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def keep_outputs(declared, caps, inputs=()):
    """Move what was declared out of the container's reach, then measure it; return the record's part about it.

    Args:
        declared: objects with `name` or `glob`, and `required`, in the words of the contract.
        caps: limits, in the words of the node's policy.
        inputs: names of what was only mounted.
    """
    keeper = _Keeper(caps, inputs)
    for promise in declared:
        keeper.keep(promise)
    return keeper.found


class _Keeper:
    """Attributes:
    found: `outputs`, and what is not among them: `missing` (promised, and no file of ours), `too_large`, `changing`
        (while it was measured), `surplus` (how many files there were too many), `reasons` (name → why).
    """

    def __init__(self, caps, inputs):
        self._caps = caps
        self._names, self._bytes = set(inputs), 0
        self._inodes = None
        self.found: Any = {
            **{kind: [] for kind in ("outputs", "missing", "too_large", "changing")},
            "surplus": 0,
            "reasons": {},
        }

    def keep(self, promise):
        name = promise.get("name") or promise["glob"]
        try:
            reason = self._keep_name(name) if "name" in promise else self._keep_all(name)
        except OSError as error:
            reason = "cannot be kept: {}".format(error.strerror)
        if reason and promise["required"]:
            self._fault("missing", name, reason)

    def _keep_all(self, pattern):
        """Keep what a pattern means; return why nothing was found."""
        count, others = 0, 0
        for name, entry in Pattern(pattern).find(WORK):
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                others += 1
                continue
            count += 1
            reason = _bad_name(name) or self._foreign(status)
            if reason:
                self._fault("missing", name, reason)
            else:
                self._keep_file(name, status)
        if count:
            return None
        return "matches nothing but links and special files" if others else "matches no file"

    def _keep_name(self, name):
        """Keep one file; return why there is none."""
        source = os.path.join(WORK, name)
        try:
            status = os.lstat(source)
        except (FileNotFoundError, NotADirectoryError):
            return "is not there"
        if os.path.realpath(source) != os.path.join(os.path.realpath(WORK), name):
            is_link = stat.S_ISLNK(status.st_mode)
            return "is a symbolic link" if is_link else "lies below a symbolic link"
        for is_kind, reason in _KINDS:
            if is_kind(status.st_mode):
                return reason
        reason = self._foreign(status)
        if not reason:
            self._keep_file(name, status)
        return reason

    def _keep_file(self, name, status):
        """Keep a regular file of the job's own, once, within the limits."""
        if name in self._names:
            return
        self._names.add(name)
        caps, size = self._caps, status.st_size
        if len(self.found["outputs"]) >= caps["max_outputs"]:
            self.found["surplus"] += 1
        elif size > caps["max_output_bytes"]:
            limit = caps["max_output_bytes"]
            self._fault("too_large", name, "has {} bytes, {} are allowed".format(size, limit))
        elif self._bytes + size > caps["max_outputs_bytes"]:
            limit = caps["max_outputs_bytes"]
            self._fault(
                "too_large", name, "would make all outputs more than {} bytes".format(limit)
            )
        else:
            self._bytes += size
            self._move_and_measure(name, size > caps["keep_in_place_above_bytes"])

    def _move_and_measure(self, name, stays):
        source, target = (
            os.path.join(WORK, name),
            os.path.join(IN_PLACE if stays else OUTPUTS, name),
        )
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.chmod(os.path.dirname(source), 0o700)  # a job may close its directories and files;
        os.rename(source, target)
        os.chmod(target, 0o600)  # they are ours, and to be read
        size, sha256 = _measured(target)
        if sha256 is None:
            os.rename(target, source)
            self._fault(
                "changing", name, "was written to by somebody after the container had ended"
            )
            return
        location = "remote" if stays else "repository"
        output = {"name": name, "size": size, "sha256": sha256, "location": location}
        self.found["outputs"].append(output)

    def _foreign(self, status):
        """Why a file is not the job's own: it has more names than can be found in the job's directory."""
        if status.st_nlink == 1:
            return None
        if self._inodes is None:
            self._inodes = _inodes(WORK)
        if self._inodes.get((status.st_dev, status.st_ino), 0) >= status.st_nlink:
            return None
        return "is a hard link to a file outside of the job's directory"

    def _fault(self, kind, name, reason):
        told = name.encode("utf-8", "backslashreplace").decode()[:_MOST_LETTERS]
        if len(self.found[kind]) < _MOST_NAMED:
            self.found[kind].append(told)
            self.found["reasons"][told] = reason


def _bad_name(name):
    if len(name) > _MOST_LETTERS:
        return "has a name of more than {} characters".format(_MOST_LETTERS)
    # Cs: what is not UTF-8, as Python holds it.
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "has a name that is not UTF-8, or holds control characters"
    return None


def _inodes(root):
    """How many names each file below `root` has there."""
    found: Any = {}
    for directory, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            key = status.st_dev, status.st_ino
            found[key] = found.get(key, 0) + 1
    return found


def _measured(path):
    """Size and sha256 of a file; (size, None) if it did not hold still."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        left = before.st_size  # not to its end: that may run away
        while left > 0:
            block = file.read(min(left, _BLOCK))
            if not block:
                break
            digest.update(block)
            left -= len(block)
        after = os.fstat(file.fileno())
    is_still = left == 0 and before.st_mtime_ns == after.st_mtime_ns
    is_same = is_still and before.st_size == after.st_size
    return before.st_size, digest.hexdigest() if is_same else None
