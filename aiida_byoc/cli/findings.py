"""What the doctor says of a part of the node: what is wrong, and what helps; there is always something that helps."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REMEDIES", "Finding", "finding"]

REMEDIES = {
    "database": "start PostgreSQL, and see its log",
    "tables": "run `verdi data byoc init`",
    "exposure": "let PostgreSQL listen to this machine alone",
    "disk": "make room",
    "clock": "synchronise the clocks (NTP)",
    "versions": "install what mends it",
    "witness": "`verdi data byoc init` installs it",
    "profile": "run `verdi data byoc init` again",
    "policy": "`verdi data byoc policy check` names every mistake",
    "broker": "see docs/broker.md",
    "agent": "start `verdi data byoc agent run`",
    "launcher": "see the agent's log",
    "reader": "see the agent's log",
    "workers": "start `verdi daemon start`",
    "adapter": "check the address, the proxy and the certificates",
    "identity": "`verdi data byoc node show` tells which key it is; enrol anew with a new token of the product's",
    "relay": "the agent's log has more; it goes on by itself once the adapter takes events again",
    "slurm": "run `scontrol ping`",
    "accounting": "start slurmdbd",
    "transport": "run `verdi computer test`",
    "runtime": "`verdi data byoc node runtimes` tries each, and docs/runtimes.md says what it needs",
    "epilog": "write what `verdi data byoc node epilog` prints to the file that slurm.conf names as Epilog",
    "work chains": "install the plugin, or take the work chain out of policy.toml",
}
"""By the part: what helps where the finding itself does not say it better."""


@dataclass(frozen=True)
class Finding:
    """Something that an operator has to mend."""

    part: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.wrong}; {self.remedy}"


def finding(part: str, sentence: str) -> Finding:
    """Take a sentence apart: what is wrong stands before its first semicolon, what helps behind it."""
    wrong, _, remedy = " ".join(sentence.split()).partition("; ")
    return Finding(part, wrong, remedy or REMEDIES[part])
