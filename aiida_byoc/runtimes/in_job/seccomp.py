"""podman's own seccomp profile, without the calls that make or enter namespaces.

podman allows them, so that podman may run in podman; a job's container needs none, and in a user namespace of its own
it would have root's privileges over whatever the kernel lets those reach.
"""

import json

_PROFILES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
_NAMESPACES = {
    *("clone", "clone3", "unshare", "setns", "mount", "umount", "umount2", "pivot_root"),
    *("open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount", "fspick"),
}
_FLAGS_OF_NAMESPACES = 0x7E020000
"""CLONE_NEW… but CLONE_NEWTIME, which clone(2) does not know."""
_NO_SUCH_CALL = 38
"""ENOSYS: libc then falls back from clone3 to clone, whose flags can be seen."""


def tightened_profile():
    """The text of the profile; `None` where the machine has none to start from."""
    for path in _PROFILES:
        try:
            with open(path, encoding="utf-8") as file:
                profile = json.load(file)
        except (OSError, ValueError):
            continue
        for rule in profile["syscalls"]:
            if rule["action"] == "SCMP_ACT_ALLOW":
                rule["names"] = [name for name in rule["names"] if name not in _NAMESPACES]
        profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
        profile["syscalls"] += [
            _clone(0, {"excludes": {"arches": ["s390", "s390x"]}}),
            _clone(1, {"includes": {"arches": ["s390", "s390x"]}}),
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _NO_SUCH_CALL},
        ]
        return json.dumps(profile)
    return None


def _clone(index, where):
    without = {"index": index, "value": _FLAGS_OF_NAMESPACES, "valueTwo": 0}
    without["op"] = "SCMP_CMP_MASKED_EQ"
    return {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [without], **where}
