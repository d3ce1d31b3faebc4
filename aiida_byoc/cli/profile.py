"""What `init` makes of an AiiDA profile: storage and broker that lose nothing, and slots enough for every job."""

from __future__ import annotations

from aiida_byoc.commands.admission import SLOTS_OPTION, SLOTS_PER_JOB
from aiida_byoc.commands.housekeeping import Limits
from aiida_byoc.node import SettingsError

__all__ = ["BROKERS", "SLOTS", "STORAGE", "adapt", "check", "check_slots"]

STORAGE = "byoc.psql_dos"
BROKERS = ("byoc.postgres", "core.rabbitmq", "core.zeromq")
SLOTS = 10_000
"""Processes that a worker takes on at a time, unless the owner has set another number."""


def adapt(name: str, broker: str) -> list[str]:
    """Put a profile on PostgreSQL on our storage and the broker, in AiiDA's configuration; return what to tell of it.

    To be called before the profile's storage is loaded.

    Raises:
        SettingsError: the daemon works with the old ones, or RabbitMQ is not configured; nothing is changed then.
    """
    from aiida.engine.daemon.client import get_daemon_client
    from aiida.manage import get_config

    config = get_config()
    profile = config.get_profile(name)
    told = []
    before = (profile.storage_backend, profile.process_control_backend)
    if before != (STORAGE, broker):
        if get_daemon_client(name).is_daemon_running:
            raise SettingsError(
                f"the daemon works with {before[0]} and {before[1]}; run `verdi daemon stop`, then init again"
            )
        if profile.process_control_backend != broker:
            profile.set_process_controller(broker, _broker_config(broker))
        profile.set_storage(STORAGE, profile.storage_config)
        config.update_profile(profile)
        told.append(f"Profile: {name} is now on {STORAGE} and {broker}")
        if before[1] not in {None, broker}:
            told.append(
                f"Tasks stay behind in {before[1]}: if processes are active,"
                " run `verdi process repair` before the daemon starts"
            )
    if SLOTS_OPTION not in profile.options:
        config.set_option(SLOTS_OPTION, SLOTS, scope=name)
    config.store()
    if broker == "core.zeromq":
        told.append(
            "core.zeromq is for trying out: it forgets tasks when it dies, and may run a process twice"
        )
    return told


def check(limits: Limits) -> None:
    """The loaded profile is as `adapt` made it, and has slots enough for the policy.

    Raises:
        SettingsError: what is not, and the command that helps.
    """
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    storage, broker = profile.storage_backend, profile.process_control_backend
    if storage != STORAGE or broker not in BROKERS:
        raise SettingsError(
            f"is on {storage} and {broker or 'no broker'}; run `verdi data byoc init` again"
        )
    check_slots(limits, workers=1)


def check_slots(limits: Limits, workers: int) -> None:
    """The launched jobs leave slots for their calculations, so that none waits for another's for ever.

    Raises:
        SettingsError: they may fill all slots of that many workers.
    """
    from aiida.manage import get_manager

    slots = int(get_manager().get_option(SLOTS_OPTION)) * workers
    needed = limits.active_jobs * SLOTS_PER_JOB
    if needed > slots:
        raise SettingsError(
            f"the policy's active_jobs = {limits.active_jobs} needs {needed} slots, {workers} worker(s) have {slots};"
            f" lower it, or raise {SLOTS_OPTION} (`verdi config set`)"
        )


def _broker_config(broker: str) -> dict[str, object]:
    from aiida.common.exceptions import EntryPointError
    from aiida.plugins import BrokerFactory

    if broker == "core.rabbitmq":
        raise SettingsError(
            "RabbitMQ's address is not known; run `verdi profile configure-broker core.rabbitmq`, then init again"
        )
    try:
        config: dict[str, object] = BrokerFactory(broker).get_default_config()
    except EntryPointError as error:
        raise SettingsError(f"the broker {broker} is not installed") from error
    return config
