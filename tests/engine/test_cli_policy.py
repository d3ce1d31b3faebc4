"""`verdi data byoc policy …`: what an owner types, on a node with a real Slurm, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aiida_byoc.cli import byoc
from aiida_byoc.cli.common import settings_path
from aiida_byoc.commands.draining import set_draining
from aiida_byoc.runtimes.images import ImageStore
from tests.builders import DIGEST, POLICY, submit_body
from tests.unit.node.oci import file, layer, layout

Run = Callable[..., Result]
SOUND = (
    POLICY.replace('"batch"', '"main"')
    .replace('accounts = { chemistry = "chem-42" }\nqos = { low = "scavenger" }\n', "")
    .replace("[ceilings]", "[limits]\nactive_jobs = 2\n\n[ceilings]")
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(f"{SOUND}pull = false\n")
    return path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def run(node: Any, profile: Any, policy: Path, store: ImageStore) -> Iterator[Run]:
    """Run a command of `verdi data byoc policy` on a node with this policy."""
    path = settings_path(profile.name)
    changes = {"policy_file": policy, "image_store": store.directory}
    node.settings.model_copy(update=changes).save(path)

    def invoke(*words: str, said: str | None = None) -> Result:
        return CliRunner().invoke(byoc, ["policy", *words], input=said, catch_exceptions=False)

    yield invoke
    path.unlink(missing_ok=True)


@pytest.fixture
def present(policy: Path, store: ImageStore, tmp_path: Path) -> str:
    """The policy names an image that the store has."""
    digest = layout(tmp_path / "source", [layer(file("content"))])
    store.add(tmp_path / "source", digest)
    policy.write_text(policy.read_text().replace(DIGEST, digest))
    return digest


def command(node: Any, digest: str, **changes: Any) -> str:
    workload = {**submit_body()["workload"], "image": f"localhost/byoc/demo@{digest}"}
    return json.dumps(
        submit_body(
            **{"management_node_id": node.settings.node_id, "workload": workload, **changes}
        )
    )


@pytest.mark.usefixtures("present")
def test_a_policy_in_order(run: Run, policy: Path) -> None:
    result = run("check")

    assert (result.exit_code, result.output) == (0, f"{policy} is in order\n")


@pytest.mark.usefixtures("present")
def test_every_mistake_is_named_with_advice(run: Run, policy: Path) -> None:
    wrong = policy.read_text().replace("cpu = 4", 'cpu = "4"\nwalltime = 5')
    policy.write_text(f"{wrong}\n[quotas]\nactive_jobs = 7\nqueued = 0\n[limit]\nslurm_jobs = 3\n")

    result = run("check", "--json")

    assert result.exit_code == 1
    found = {each["field"]: each for each in json.loads(result.output)["findings"]}
    assert set(found) == {
        "ceilings.cpu",
        "ceilings.walltime",
        "quotas.active_jobs",
        "quotas.queued",
        "limit",
    }
    assert found["ceilings.walltime"]["message"] == "is no key of the policy"
    assert found["ceilings.walltime"]["remedy"] == "did you mean walltime_seconds?"
    assert found["quotas.active_jobs"]["remedy"] == "it belongs into [limits]"
    assert found["limit"]["remedy"] == "did you mean limits?"


def test_what_the_machine_lacks_is_named(run: Run, policy: Path, tmp_path: Path) -> None:
    text = policy.read_text().replace('partition = "main"', 'partition = "mian"', 1)
    text = text.replace("active_jobs = 2", "active_jobs = 1000000")
    policy.write_text(
        text.replace(
            "[queues.night]\n",
            '[queues.night]\nruntime = "charliecloud"\ndefault_account = "nobody"\n',
        )
        + f'\n[data]\npaths = ["{tmp_path}", "/nonexistent"]\nca_file = "/nonexistent.pem"\n'
        + "\n[quotas.tenants.hooli]\nweight = 2\n"
    )

    result = run("check", "--json")

    assert result.exit_code == 1
    report = json.loads(result.output)
    found = {each["field"]: each for each in report["findings"]}
    assert found["queues.main.partition"]["remedy"].startswith("use one of: high, main")
    assert "globex" in found["quotas.tenants.hooli"]["remedy"]
    assert "images add" in found["images.localhost/byoc/demo.digests.0"]["remedy"]
    assert {"data.paths.1", "data.ca_file", "limits.active_jobs"} <= set(found)
    assert "data.paths.0" not in found
    account = "queues.night.default_account"
    assert account in found or any(each.startswith("account") for each in report["not_compared"])


def test_what_slurm_takes_is_explained_as_the_agent_knows_it(
    run: Run, policy: Path, node: Any, present: str
) -> None:
    """Slurm's MaxArraySize is 10,001 here."""
    policy.write_text(f"{policy.read_text()}\n[arrays]\ntasks = 20000\nelements = 20000\n")
    image = f"localhost/byoc/demo@{present}"
    array = {"kind": "array", "image": image, "argv": ["x"], "tasks": {"count": 15_000}}

    said = [
        run("explain", "-", "--json", said=command(node, present, workload={**array, "pack": pack}))
        for pack in (1, 2)
    ]

    assert [each.exit_code for each in said] == [1, 0]
    (error,) = json.loads(said[0].output)["problem"]["errors"]
    assert (error["field"], error["remedy"]) == ("workload.pack", "use 2 or more")
    assert json.loads(said[1].output)["placement"]["elements"] == 7500


def test_an_image_that_the_node_may_fetch_is_not_missed(run: Run, policy: Path) -> None:
    text = policy.read_text().replace("localhost/byoc/demo", "registry.example/demo")
    policy.write_text(text.replace("pull = false", "pull = true"))

    assert run("check").exit_code == 0


def test_another_file_than_the_nodes(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "other.toml"
    broken.write_text("tenants = [")

    for words in (["check", str(broken)], ["check", str(tmp_path / "nowhere.toml")]):
        result = run(*words)
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        assert result.output.count("\n") == 1


def test_where_a_command_would_run(run: Run, node: Any, present: str, tmp_path: Path) -> None:
    path = tmp_path / "command.json"
    path.write_text(command(node, present))

    result = run("explain", str(path), "--json")

    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["placement"]["partition"] == "main"
    assert answer["placement"]["image_digest"] == present
    assert answer["quota"] == {"node_hours_days": 30, "weight": 1.0}
    said = run("explain", "-", said=command(node, present))
    assert said.exit_code == 0
    assert 'partition = "main"' in said.output


def test_every_refusal_with_field_and_remedy(run: Run, node: Any, present: str) -> None:
    shape = {"cpu": 99, "memory_mib": 256, "walltime_seconds": 999_999}
    body = command(node, "sha256:" + "0" * 64, resource_shape=shape)

    result = run("explain", "-", said=body)

    assert result.exit_code == 1
    assert "resource_shape.cpu: exceeds the node's ceiling of 4; ask for at most 4" in result.output
    assert "resource_shape.walltime_seconds" in result.output
    assert "workload.image: the digest is not approved" in result.output
    assert present not in result.output


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tenant_id": "hooli"}, "not-found"),
        ({"management_node_id": "another"}, "node-mismatch"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "command-expired"),
        ({"resource_shape": {"cpu": "one"}}, "validation-failed"),
    ],
)
def test_what_else_refuses_it(
    run: Run, node: Any, present: str, change: dict[str, Any], problem: str
) -> None:
    result = run("explain", "-", "--json", said=command(node, present, **change))

    assert result.exit_code == 1
    assert json.loads(result.output)["problem"]["type"].endswith(f"/{problem}")


def test_no_json_is_one_sentence(run: Run) -> None:
    result = run("explain", "-", said="{")

    assert result.exit_code == 1
    assert "Send one JSON object" in result.output


def test_as_if_from_another_tenant(run: Run, node: Any, present: str) -> None:
    body = command(node, present)

    assert run("explain", "-", "--tenant", "globex", said=body).exit_code == 0
    assert run("explain", "-", "--tenant", "hooli", said=body).exit_code == 1


def test_quotas_and_a_drain_count_as_they_are_now(
    run: Run, node: Any, present: str, policy: Path
) -> None:
    def problem() -> str:
        answer = json.loads(run("explain", "-", "--json", said=command(node, present)).output)
        return str(answer.get("problem", {}).get("type", "")).rpartition("/")[2]

    policy.write_text(f"{policy.read_text()}\n[quotas]\nqueued = 1\n")
    assert problem() == ""
    node.accept("true")
    assert problem() == "quota-exceeded"
    set_draining(node.connection, True)
    try:
        assert problem() == "node-draining"
    finally:
        set_draining(node.connection, False)
    rows = node.connection.execute("SELECT count(*) FROM byoc.job WHERE job_id = 'job-1'")
    assert rows.fetchone() == (0,)
