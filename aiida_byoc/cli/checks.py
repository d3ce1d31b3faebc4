"""What must be there before a machine can be a management node; each failure is one sentence with its remedy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from aiida_byoc.node import SettingsError
from aiida_byoc.runtimes import RUNTIMES

__all__ = ["adapter", "broker", "computer_and_code", "runtime", "slurm"]

_BROKERS = ("core.rabbitmq", "core.zeromq")


def broker() -> None:
    """The profile has a broker that the daemon can work with."""
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    backend = profile.process_control_backend if profile else None
    if backend not in _BROKERS:
        raise SettingsError(
            f"the profile's broker is {backend or 'missing'}; a management node needs one of {', '.join(_BROKERS)}"
            " (`verdi profile configure-broker`)"
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
    """The policy's runtime is one we know, and is installed."""
    if name not in RUNTIMES:
        raise SettingsError(
            f"the policy's runtime {name!r} is unknown; use one of {', '.join(RUNTIMES)}"
        )
    program = RUNTIMES[name].program
    if not shutil.which(program):
        raise SettingsError(
            f"the runtime {name} is missing: {program} is not on PATH (Debian: {name})"
        )


def adapter(url: str) -> None:
    """The adapter can be reached from here."""
    import httpx

    try:
        answer = httpx.get(f"{url.rstrip('/')}/livez", timeout=10)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SettingsError(
            f"the adapter cannot be reached at {url}: {error}; check the address, or pass --offline"
        ) from error


def computer_and_code(computer_label: str, code_label: str, python: str) -> None:
    """The AiiDA computer runs `byoc.slurm`, and the code for the in-job program exists (it is made if missing)."""
    from aiida.common import NotExistent
    from aiida.manage import get_manager
    from aiida.orm import InstalledCode, load_code, load_computer

    get_manager().get_profile_storage()
    try:
        computer = load_computer(computer_label)
    except NotExistent as error:
        raise SettingsError(
            f"there is no AiiDA computer {computer_label}; make it with `verdi computer setup --scheduler byoc.slurm`"
        ) from error
    if computer.scheduler_type != "byoc.slurm":
        raise SettingsError(
            f"the computer {computer_label} uses {computer.scheduler_type}; it needs the scheduler byoc.slurm"
        )
    if not computer.is_configured:
        raise SettingsError(
            f"the computer {computer_label} is not configured; run `verdi computer configure`"
        )
    try:
        load_code(code_label)
    except NotExistent:
        InstalledCode(
            label=code_label.partition("@")[0],
            computer=computer,
            filepath_executable=str(Path(python)),
        ).store()
