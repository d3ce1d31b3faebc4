"""Names that a pattern stands for: `*`, `?` and `[…]` within a part of a path, `**` for any number of parts.

As in a shell, a name that begins with a dot is meant only by a pattern that does. No link is followed, no directory is
read twice, and comparing a name takes no longer than both are long, whatever the pattern (`fnmatch` may take for ever).
"""

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # without the import of `typing`, which every start of a job would pay for
    from typing import Any

_ANY_DEPTH, _ANY_LENGTH = "**", "*"


class Pattern:
    """A relative pattern, well-formed: brackets are closed and hold something."""

    def __init__(self, text: str) -> None:
        self._parts: Any = [
            part if part == _ANY_DEPTH else (part.startswith("."), list(_tokens(part)))
            for part in text.split("/")
        ]

    def matches(self, name: str) -> bool:
        """Whether the pattern means the file of that relative name."""
        *directories, last = name.split("/")
        places = {0}
        for part in directories:
            places, _ = self._step(places, part)
        return bool(self._step(places, last)[1])

    def find(self, root):
        """Yield (relative name, os.DirEntry) of everything below `root` that is meant and is no directory.

        Raises:
            OSError: a directory that had to be looked into cannot be read.
        """
        waiting = [(root, "", {0})]
        while waiting:
            directory, prefix, places = waiting.pop()
            for entry in _entries(directory):
                deeper, is_meant = self._step(places, entry.name)
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if deeper:
                        waiting.append((entry.path, name + "/", deeper))
                elif is_meant:
                    yield name, entry

    def _step(self, places, name):
        """From places in the pattern to those behind a part of that name, and whether the pattern may end with it."""
        deeper, is_meant = set(), False
        waiting, last = list(places), len(self._parts) - 1
        while waiting:
            place = waiting.pop()
            part = self._parts[place]
            if part == _ANY_DEPTH:
                if place < last:
                    waiting.append(place + 1)
                if name.startswith("."):
                    continue
                deeper.add(place)
                is_meant = is_meant or place == last
            elif name.startswith(".") <= part[0] and _fits(part[1], name):
                is_meant = is_meant or place == last
                if place < last:
                    deeper.add(place + 1)
        return deeper, is_meant


def _entries(directory):
    with contextlib.suppress(OSError):
        os.chmod(directory, 0o700)  # a job may close its directories; they are ours
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _tokens(part):
    """`*`, or the pair of (characters, whether they are those that are not meant)."""
    position = 0
    while position < len(part):
        character = part[position]
        if character == "*":
            yield _ANY_LENGTH
        elif character == "?":
            yield (), True
        elif character == "[":
            end = part.index("]", position)
            inside = part[position + 1 : end]
            yield tuple(_ranges(inside.lstrip("!"))), inside.startswith("!")
            position = end
        else:
            yield ((character, character),), False
        position += 1


def _ranges(inside):
    position = 0
    while position < len(inside):
        width = (
            2 if inside[position + 1 : position + 2] == "-" and position + 2 < len(inside) else 0
        )
        yield inside[position], inside[position + width]
        position += width + 1


def _fits(tokens, name):
    """Compare from left to right; where it fails, let the last `*` take one character more."""
    token, position, star, taken = 0, 0, None, 0
    while position < len(name):
        if token < len(tokens) and tokens[token] == _ANY_LENGTH:
            star, taken = token, position
            token += 1
        elif token < len(tokens) and _means(tokens[token], name[position]):
            token, position = token + 1, position + 1
        elif star is not None:
            taken += 1
            token, position = star + 1, taken
        else:
            return False
    return all(each == _ANY_LENGTH for each in tokens[token:])


def _means(token, character):
    ranges, is_negated = token
    return any(low <= character <= high for low, high in ranges) != is_negated
