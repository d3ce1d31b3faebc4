"""A private Slurm cluster on one machine: its own munge, one controller, several nodes.

As an ordinary user it runs jobs of that user only. It keeps accounts only if it is told to (`lab.accounting`);
`jobcomp.log` has a line for every finished job.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import accounting, cgroups, process
from lab.paths import LabPaths
from lab.slurm_conf import GPUS, GRES_CONF, SCRATCH_MIB, SLURM_CONF

EPILOG = Path(__file__).parents[1] / "aiida_byoc" / "runtimes" / "epilog.sh"

START_SECONDS = 60.0
DRAIN_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A running cluster, all its nodes idle. Clients need `SLURM_CONF=<conf>` in their environment."""

    conf: Path
    slurmctld_pid: int
    slurmd_pids: list[int]
    munged_pid: int
    nodes: list[str]


def start(
    paths: LabPaths,
    nodes: int = 2,
    cpus: int = 4,
    memory_mib: int = 16384,
    *,
    with_cgroups: bool = False,
    max_jobs: int = 30_000,
    min_job_age: int = 300,
) -> Slurm:
    """Start the cluster, on the state of an earlier run if there is one, and wait for its nodes.

    Args:
        cpus: per node, whatever the machine has.
        memory_mib: per node, whatever the machine has.
        with_cgroups: let the kernel limit memory and track processes, where `cgroups.are_there`; the nodes' names are
            then the lab's own, since their control groups are the whole machine's.
        max_jobs: that the controller takes, those counted that it remembers (`MaxJobCount`).
        min_job_age: so long it remembers ended ones, in seconds.

    Raises:
        LabError: a part did not start; the message holds the ends of the logs.
    """
    node = f"{paths.name}n" if with_cgroups else "n"
    conf = _configure(
        paths,
        node,
        nodes,
        cpus,
        memory_mib,
        with_cgroups=with_cgroups,
        max_jobs=max_jobs,
        min_job_age=min_job_age,
    )
    munged = _start_munge(paths)
    if accounting.is_wanted():
        accounting.start(paths, conf, _munge_socket(paths))
    controller = start_controller(paths)
    names = [f"{node}{number}" for number in range(1, nodes + 1)]
    daemons = [_start_node(paths, name) for name in names]
    process.wait_until(
        lambda: _ask(conf, "sinfo", "-hN", "-p", "main", "-o", "%t").split() == ["idle"] * nodes,
        START_SECONDS,
        "the nodes to be idle",
        logs=[paths.logs / f"slurmd-{name}.main.log" for name in names],
        needs=[munged, controller, *daemons],
    )
    return Slurm(
        conf=conf,
        slurmctld_pid=controller.pid,
        slurmd_pids=[daemon.pid for daemon in daemons],
        munged_pid=munged.pid,
        nodes=names,
    )


def start_controller(paths: LabPaths) -> process.Daemon:
    """Start the controller alone, on its saved state: after it was killed; wait until it answers."""
    conf = _conf(paths)
    controller = process.spawn(
        paths, "slurmctld", ["slurmctld", "-D"], env={"SLURM_CONF": str(conf)}
    )
    process.wait_until(
        lambda: "is UP" in _ask(conf, "scontrol", "ping"),
        START_SECONDS,
        "slurmctld to answer",
        logs=[paths.logs / "slurmctld.main.log"],
        needs=[process.recorded(paths)["munged"], controller],
    )
    return controller


def restart_node(paths: LabPaths, name: str) -> None:
    """Stop a node's daemon as an operator does and start it anew; its jobs go on."""
    process.stop(paths, f"slurmd-{name}")
    daemon = _start_node(paths, name)
    log = [paths.logs / f"slurmd-{name}.main.log"]
    up = ("idle", "mix", "alloc")
    process.wait_until(
        lambda: (
            _ask(_conf(paths), "sinfo", "-hN", "-n", name, "-p", "main", "-o", "%t").strip() in up
        ),
        START_SECONDS,
        f"{name} to be back",
        logs=log,
        needs=[daemon],
    )


def stop(paths: LabPaths, *, cancel: bool = True) -> None:
    """Stop the cluster; its state stays.

    Args:
        cancel: cancel every job first. Otherwise running jobs go on, and a later `start` finds them.
    """
    conf = _conf(paths)
    if cancel and conf.exists() and "is UP" in _ask(conf, "scontrol", "ping"):
        _ask(conf, "scancel", f"--user={_user()}")
        with contextlib.suppress(process.LabError):  # what is left then, the sweep ends
            process.wait_until(lambda: not _ask(conf, "squeue", "-h"), DRAIN_SECONDS, "no jobs")
    daemons = process.recorded(paths)
    process.stop(paths, *(name for name in daemons if name.startswith("slurmd-")))
    process.stop(paths, "slurmctld")
    accounting.stop(paths)
    process.stop(paths, "munged")
    cgroups.remove(paths)


def _configure(
    paths: LabPaths,
    node: str,
    nodes: int,
    cpus: int,
    memory_mib: int,
    *,
    with_cgroups: bool,
    **limits: int,
) -> Path:
    home, conf = paths.directory("slurm"), _conf(paths)
    ports = paths.ports("slurm", 1 + nodes)
    (_run(paths) / "slurmd").mkdir(exist_ok=True)
    (home / "cgroup.conf").write_text(cgroups.CONF)
    (home / "gres.conf").write_text(GRES_CONF)
    _install_epilog(home / "epilog.sh")
    if (
        os.geteuid() == 0
    ):  # jobs of other users pass through: to their scripts, the configuration, munge
        for place in (home, _run(paths)):
            place.chmod(0o711)
    conf.write_text(
        SLURM_CONF.format(
            cluster=paths.name,
            host=socket.gethostname().partition(".")[0],
            user=_user(),
            home=home,
            run=_run(paths),
            logs=paths.logs,
            munge_socket=_munge_socket(paths),
            accounting=_accounting(paths),
            controller_port=ports[0],
            first_port=ports[1],
            last_port=ports[-1],
            tracking="cgroup" if with_cgroups else "linuxproc",
            limiting="cgroup" if with_cgroups else "none",
            over_memory="NoOverMemoryKill" if with_cgroups else "OverMemoryKill",
            node=node,
            nodes=nodes,
            cpus=cpus,
            gpus=len(GPUS),
            scratch_mib=SCRATCH_MIB,
            memory_mib=memory_mib,
            **limits,
        )
    )
    return conf


def _accounting(paths: LabPaths) -> str:
    if not accounting.is_wanted():
        return "AccountingStorageType=accounting_storage/none"
    where = {"host": accounting.HOST, "port": accounting.port(paths)}
    return accounting.CONF.format(**where, munge_socket=_munge_socket(paths)).rstrip()


def _start_node(paths: LabPaths, name: str) -> process.Daemon:
    command = ["slurmd", "-D", "-N", name]
    return process.spawn(paths, f"slurmd-{name}", command, env={"SLURM_CONF": str(_conf(paths))})


def _install_epilog(path: Path) -> None:
    path.write_text(EPILOG.read_text())
    path.chmod(0o755)


def _start_munge(paths: LabPaths) -> process.Daemon:
    home = paths.directory("slurm")
    key = home / "munge.key"
    if not key.exists():
        draft = home / "munge.key.new"
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(128))
        draft.rename(key)
    files = [
        f"--socket={_munge_socket(paths)}",
        f"--key-file={key}",
        f"--pid-file={_run(paths) / 'munged.pid'}",
        f"--seed-file={home / 'munged.seed'}",
    ]
    # --force: a lab is private, which munged takes for "inaccessible" or, below a directory that
    # others may write to, for "insecure".
    munged = process.spawn(paths, "munged", ["munged", "--foreground", "--force", *files])
    trial = [process.executable("munge"), "--no-input", f"--socket={_munge_socket(paths)}"]
    process.wait_until(
        lambda: subprocess.run(trial, capture_output=True, check=False).returncode == 0,
        START_SECONDS,
        "munged to answer",
        needs=[munged],
    )
    return munged


def _conf(paths: LabPaths) -> Path:
    return paths.directory("slurm") / "slurm.conf"


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _run(paths: LabPaths) -> Path:
    return paths.run_directory("slurm")


def _munge_socket(paths: LabPaths) -> Path:
    return _run(paths) / "munge.socket"


def _ask(conf: Path, command: str, *arguments: str) -> str:
    """What a client command says, or nothing while the cluster does not answer it."""
    outcome = subprocess.run(
        [process.executable(command), *arguments],
        env={**os.environ, "SLURM_CONF": str(conf)},
        capture_output=True,
        text=True,
        check=False,
    )
    return outcome.stdout
