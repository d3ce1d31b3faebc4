"""What must be there before a machine can be a management node; each failure is one sentence with its remedy."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from aiida_byoc import runtimes
from aiida_byoc.asking import slurm_configuration
from aiida_byoc.node import NodeSettings, SettingsError
from aiida_byoc.runtimes import RUNTIMES, missing

if TYPE_CHECKING:
    from aiida.orm import Computer

__all__ = ["EPILOG", "adapter", "computer", "epilog", "runtime", "slurm"]

EPILOG = Path(runtimes.__file__).with_name("epilog.sh")
"""What Slurm shall call at the end of a job."""

_OUR_NAME, _OUR_TITLE = "aiida-byoc", "aiida-byoc's Epilog"
_INSTALL = (
    "write what `verdi data byoc node epilog` prints to the file that slurm.conf names as Epilog"
)


def slurm() -> None:
    """Slurm's commands are here and its controller answers."""
    missing = [
        name for name in ("sbatch", "squeue", "scancel", "scontrol") if not shutil.which(name)
    ]
    if missing:
        raise SettingsError(
            f"Slurm is missing: {', '.join(missing)} not on PATH (Debian: slurm-client)"
        )
    try:
        answer = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SettingsError("Slurm's controller does not answer `scontrol ping`") from error
    if answer.returncode != 0 or "UP" not in answer.stdout:
        raise SettingsError(
            "Slurm's controller does not answer `scontrol ping`; is slurmctld running, SLURM_CONF right?"
        )


def runtime(name: str) -> None:
    """The runtime is installed."""
    if lacking := missing(name):
        raise SettingsError(
            f"the runtime {name} cannot be used: {', '.join(lacking)} missing ({RUNTIMES[name].HELP})"
        )


def epilog() -> None:
    """Slurm removes what a container leaves, by our Epilog."""
    found = re.findall(r"^Epilog(?:\[\d+\])?\s*=\s*(\S+)", slurm_configuration(), re.MULTILINE)
    names = [name for name in found if name != "(null)"]
    if not names:
        raise SettingsError(
            f"Slurm has no Epilog, and podman's containers outlive their jobs; {_INSTALL}"
        )
    texts = [
        Path(path).read_text(encoding="utf-8", errors="replace")
        for name in names
        for path in sorted(glob.glob(name))  # noqa: PTH207  (an absolute pattern)
        if os.access(path, os.R_OK)
    ]
    if not texts:
        raise SettingsError(
            f"Slurm's Epilog {names[0]} cannot be read on this machine; put it here as well, to have it checked"
        )
    ours = [text for text in texts if _OUR_NAME in text]
    if not ours:
        raise SettingsError(
            f"Slurm's Epilog does not call ours, and podman's containers outlive their jobs; {_INSTALL}"
        )
    if EPILOG.read_text() not in ours and any(_OUR_TITLE in text for text in ours):
        raise SettingsError(f"the Epilog in Slurm is of another version; {_INSTALL}")


def adapter(settings: NodeSettings) -> None:
    """The adapter can be reached from here, by the node's own way."""
    from aiida_byoc.agent.link import AdapterUnavailable, reach

    try:
        reach(settings)
    except AdapterUnavailable as error:
        raise SettingsError(
            f"the adapter cannot be reached at {settings.adapter_url}: {error}; check the address, the proxy"
            " (HTTPS_PROXY, or --proxy) and the certificates (--ca-file), or pass --offline"
        ) from error


def computer(label: str) -> Computer:
    """The AiiDA computer of the cluster: it exists, is configured, and runs `byoc.slurm`."""
    from aiida.common import NotExistent
    from aiida.manage import get_manager
    from aiida.orm import load_computer

    get_manager().get_profile_storage()
    try:
        found = load_computer(label)
    except NotExistent as error:
        raise SettingsError(
            f"there is no AiiDA computer {label}; make it with `verdi computer setup --scheduler byoc.slurm`"
        ) from error
    if found.scheduler_type != "byoc.slurm":
        raise SettingsError(
            f"the computer {label} uses {found.scheduler_type}; it needs the scheduler byoc.slurm"
        )
    if not found.is_configured:
        raise SettingsError(
            f"the computer {label} is not configured; run `verdi computer configure`"
        )
    return found
