"""Nobody brings Redis or RQ back, and business state has one owner on each side; each fence is seen to fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fences.house import ROOT
from tests.fences.ownership import (
    BANNED,
    RULES,
    debian_packages,
    locked_packages,
    python_imports,
    the_adapter_keeps_nothing,
    the_node_does_not_write_the_product,
    the_product_keeps_to_convex,
    typescript_imports,
)

SEEDS = [
    (locked_packages, "requirements.lock", "\nredis==5.0.0 \\\n"),
    (locked_packages, "requirements.lock", "\nRQ==1.16.0 ; python_version > '3'\n"),
    (locked_packages, "requirements.lock", "\ntypes-redis==4.6.0\n"),
    (debian_packages, "lab/bootstrap.sh", "\napt-get install redis-server\n"),
    (debian_packages, "lab/bootstrap.sh", "\n  valkey-server\n"),
    (debian_packages, "docs/install/Containerfile", "\nRUN apt-get install -y python3-rq\n"),
    (python_imports, "adapter/delivery.py", "\nimport redis\n"),
    (python_imports, "aiida_byoc/commands/ledger.py", "\nfrom rq import Queue\n"),
    (python_imports, "lab/stack.py", "\nimport redis.asyncio as redis\n"),
    (python_imports, "adapter/channel.py", '\nimport_module("fakeredis.aioredis")\n'),
    (typescript_imports, "convex/jobs.ts", '\nimport Redis from "ioredis";\n'),
    (typescript_imports, "convex/jobs.ts", '\nconst { Queue } = require("bullmq");\n'),
    (typescript_imports, "convex/jobs.ts", '\nawait import("@upstash/redis");\n'),
    (the_adapter_keeps_nothing, "adapter/channel.py", "\nimport sqlite3\n"),
    (the_adapter_keeps_nothing, "adapter/delivery.py", "\nfrom sqlalchemy.orm import Session\n"),
    (the_adapter_keeps_nothing, "adapter/registry.py", "\nimport shelve\n"),
    (the_adapter_keeps_nothing, "adapter/batch.py", '\nopen("queue.json", "a")\n'),
    (the_adapter_keeps_nothing, "adapter/batch.py", '\nPath("queue").open(mode="wb")\n'),
    (the_adapter_keeps_nothing, "adapter/batch.py", '\nPath("queue").write_text("x")\n'),
    (the_product_keeps_to_convex, "convex/jobs.ts", '\nimport { readFile } from "node:fs/promises";\n'),
    (the_product_keeps_to_convex, "convex/jobs.ts", "\nimport fs from 'fs';\n"),
    (the_product_keeps_to_convex, "convex/audit.ts", '\nimport { Pool } from "pg";\n'),
    (the_node_does_not_write_the_product, "aiida_byoc/events/relay.py", "\nimport convex\n"),
    (the_node_does_not_write_the_product, "aiida_byoc/agent/link.py", '\nPATH = "/api/mutation"\n'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "banned"),
    [("redis", True), ("rq", True), ("types-redis", True), ("fastapi[redis]", True), ("@types/redis", True),
     ("node_modules/ioredis", True), ("@upstash/redis", True), ("hiredis", True), ("redis-tools", True),
     ("rqdatac", False), ("requests", False), ("attrs", False), ("torque", False), ("redistribute", False)],
)  # fmt: skip
def test_the_banned_are_recognised(name, banned):
    assert (BANNED.search(name) is not None) is banned


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    assert list(rule(ROOT)) == []


@pytest.mark.parametrize(
    ("rule", "place", "seed"), SEEDS, ids=[f"{rule.__name__}-{place}" for rule, place, _ in SEEDS]
)
def test_the_fence_fails_on_a_seeded_violation(rule, place, seed, tmp_path):
    """In a copy of the file as it is: what else stands there hides nothing."""
    target: Path = tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if (ROOT / place).exists():
        shutil.copy(ROOT / place, target)
    before = list(rule(tmp_path))
    with target.open("a") as file:
        file.write(seed)

    assert (before, len(list(rule(tmp_path)))) == ([], 1)


def test_a_package_that_comes_with_another_is_found(tmp_path):
    (tmp_path / "package-lock.json").write_text(
        '{"packages": {"node_modules/a": {}, "node_modules/a/node_modules/ioredis": {}}}'
    )
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["rq>=1"]\n')

    assert list(locked_packages(tmp_path)) == [
        "node_modules/a/node_modules/ioredis is a dependency",
        "rq is a dependency",
    ]


def test_every_rule_is_seen_to_fail():
    assert {rule for rule, _, _ in SEEDS} == set(RULES)
