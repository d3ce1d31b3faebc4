"""The modules of an array's element in one file, compiled: to look for each of them takes 1 ms of every start.

    byoc_in_job/__pycache__/packed.MAGIC     `[unpack, [(module, code), …]]` for one version of Python's byte code

The array's first element makes it. One that finds none, or has another Python, imports the modules as ever. What is
made at the start lives until the end: garbage is collected only in elements that live longer than a moment (array.py).
"""

import marshal
from _frozen_importlib_external import MAGIC_NUMBER

from . import PROGRAM
from .light import os, read, suppress, write

_MODULES = (
    *("__init__", "light", "__main__"),
    *("ending", "environment", "placeholders", "limits", "spawn", "streams", "container"),
    *("record", "array_task", "array_cancel", "array_fence", "image", "news", "array"),
)
"""What an element of one task needs, each after those that it imports."""
_PLACE = PROGRAM + "/__pycache__"

START = (
    *("-E", "-s", "-S", "-c"),
    """\
import sys
sys.path[0] = ""
try:
    from _frozen_importlib_external import MAGIC_NUMBER
    from marshal import loads
    with open("{place}/packed." + MAGIC_NUMBER.hex(), "rb") as file:
        unpack, packed = loads(file.read())
except (ImportError, OSError, EOFError, ValueError, TypeError):
    pass
else:
    exec(unpack)
from {program}.__main__ import main
main()""".format(place=_PLACE, program=PROGRAM),
)
"""What Python is told, as `in_job.START`; each line is compiled at every start."""
_UNPACK = """\
import gc, posix
from _frozen_importlib import ModuleSpec
gc.disable()
first = sys.path.pop(0)  # nothing that a module imports is beside the job
for name, code in packed:
    module = sys.modules[name] = type(sys)(name)
    module.__spec__ = ModuleSpec(name, None, is_package=name == "{program}")
    if name == "{program}":
        module.__path__ = [posix.getcwd() + "/" + name]
    exec(code, vars(module))
sys.path.insert(0, first)
""".format(program=PROGRAM)


def pack():
    """Make the file, if it can be made."""
    packed = []
    for name in _MODULES:
        path = "{}/{}.py".format(PROGRAM, name)
        code = compile(read(path), path, "exec", dont_inherit=True, optimize=2)
        packed.append((PROGRAM if name == "__init__" else PROGRAM + "." + name, code))
    with suppress(OSError):
        os.makedirs(_PLACE, exist_ok=True)
        content = marshal.dumps([compile(_UNPACK, "unpack", "exec"), packed])
        write("{}/packed.{}".format(_PLACE, MAGIC_NUMBER.hex()), content)
