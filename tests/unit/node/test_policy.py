"""What a node's owner allows, and how a refusal or a mistake in the file is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aiida_byoc.commands.image_policy import PullFrom
from aiida_byoc.commands.placement import Placement
from aiida_byoc.commands.policy import Policy, PolicyError
from aiida_byoc.commands.recovery import Recovery
from aiida_byoc.contracts.problems import ProblemError
from tests.builders import DIGEST, POLICY, submit, submit_body

OTHER = "sha256:" + "e" * 64
SHAPE = {"cpu": 4, "memory_mib": 4096, "walltime_seconds": 3600}


def read(tmp_path: Path, text: str = POLICY) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return Policy.load(path)


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return read(tmp_path)


def refusal(policy: Policy, **changes: Any) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        policy.place(submit(**changes))
    return caught.value


def image(reference: str) -> dict[str, Any]:
    return {**submit_body()["workload"], "image": reference}


def test_a_command_within_the_policy_is_placed(policy: Policy) -> None:
    assert policy.place(submit(resource_shape=SHAPE)) == Placement(
        partition="batch",
        image_digest=DIGEST,
        runtime="bubblewrap",
        recovery=Recovery(memory_ceiling_mib=4096),
    )


def test_how_often_progress_is_told_is_the_owners_word(tmp_path: Path) -> None:
    assert read(tmp_path).place(submit()).progress_seconds == 10
    every = read(tmp_path, f"{POLICY}\n[progress]\nseconds = 60\n").place(submit())
    assert every.progress_seconds == 60
    with pytest.raises(PolicyError, match=r"progress\.seconds"):
        read(tmp_path, f"{POLICY}\n[progress]\nseconds = 0\n")


def test_a_change_of_the_file_counts_at_once(tmp_path: Path) -> None:
    """Also where it leaves size and time of the file as they were."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    before, written = Policy.load(path), path.stat()
    path.write_text(POLICY.replace("memory_mib = 4096", "memory_mib = 2048"))
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    changed = Policy.load(path)
    path.write_text("tenants = 1")

    assert (before.ceilings.memory_mib, changed.ceilings.memory_mib) == (4096, 2048)
    for _ in range(2):
        with pytest.raises(PolicyError, match="tenants"):
            Policy.load(path)


def test_whether_commands_are_signed_is_the_owners_word(tmp_path: Path) -> None:
    assert read(tmp_path).signatures.required is None
    for word, required in (("true", True), ("false", False)):
        read_anew = read(tmp_path, f"{POLICY}\n[signatures]\nrequired = {word}\n")
        assert read_anew.signatures.required is required
    with pytest.raises(PolicyError, match=r"signatures\.required"):
        read(tmp_path, f'{POLICY}\n[signatures]\nrequired = "sometimes"\n')


def test_the_rules_of_recovery_are_stored_with_the_command(tmp_path: Path) -> None:
    rules = "[recovery]\nmemory_factor = 1.5\nmemory_ceiling_mib = 9000\nrequeues = 0\n\n"
    policy = read(tmp_path, POLICY.replace("[queues.main]", rules + "[queues.main]"))

    placed = policy.place(submit())

    expected = Recovery(memory_factor=1.5, memory_ceiling_mib=9000, requeues=0)
    assert isinstance(placed, Placement)
    assert placed.recovery == expected
    assert Placement.model_validate(placed.model_dump(mode="json")).recovery == expected


def test_names_become_slurms_words(policy: Policy) -> None:
    profile = {"queue_name": "night", "account": "chemistry", "qos": "low"}

    placed = policy.place(submit(execution_profile=profile))

    assert (placed.partition, placed.account, placed.qos) == ("batch", "chem-42", "scavenger")


def test_defaults_stand_in_for_what_is_not_named(tmp_path: Path) -> None:
    defaults = 'partition = "batch"\ndefault_account = "house"\ndefault_qos = "normal"\n'
    policy = read(tmp_path, POLICY.replace('partition = "batch"\n', defaults, 1))

    placed = policy.place(submit())

    assert (placed.account, placed.qos) == ("house", "normal")


@pytest.mark.parametrize(
    ("field", "changes", "ceiling"),
    [
        ("resource_shape.cpu", {"resource_shape": {**SHAPE, "cpu": 5}}, 4),
        ("resource_shape.memory_mib", {"resource_shape": {**SHAPE, "memory_mib": 4097}}, 4096),
        (
            "resource_shape.walltime_seconds",
            {"resource_shape": {**SHAPE, "walltime_seconds": 3601}},
            3600,
        ),
        ("resource_shape.gpus", {"resource_shape": {**SHAPE, "gpus": 1}}, 0),
        ("resource_shape.scratch_mib", {"resource_shape": {**SHAPE, "scratch_mib": 1}}, 0),
        ("resource_shape.nodes", {"resource_shape": {**SHAPE, "nodes": 2}}, 1),
        ("retry_policy.max_attempts", {"retry_policy": {"max_attempts": 2, "on": ["oom"]}}, 1),
    ],
)
def test_every_ceiling_holds_and_is_told(
    policy: Policy, field: str, changes: dict[str, Any], ceiling: int
) -> None:
    problem = refusal(policy, **changes)

    assert problem.kind.name == "policy-refused"
    (error,) = problem.errors
    remedy = f"ask for at most {ceiling}" if ceiling else "leave it out"
    assert (error.field, error.remedy) == (field, remedy)
    assert field in problem.detail


@pytest.mark.parametrize(
    ("name", "value", "changes"),
    [
        ("gpus", 2, {"resource_shape": {**SHAPE, "gpus": 2}}),
        ("nodes", 3, {"resource_shape": {**SHAPE, "nodes": 3}}),
        ("scratch_mib", 9, {"resource_shape": {**SHAPE, "scratch_mib": 9}}),
        ("attempts", 3, {"retry_policy": {"max_attempts": 3, "on": ["oom"]}}),
    ],
)
def test_a_ceiling_can_be_raised(
    tmp_path: Path, name: str, value: int, changes: dict[str, Any]
) -> None:
    policy = read(tmp_path, POLICY.replace("cpu = 4\n", f"cpu = 4\n{name} = {value}\n"))

    assert policy.place(submit(**changes)).partition == "batch"


@pytest.mark.parametrize(("ceiling", "most"), [("cpu = 8", 8), ("cpu = 2", 2), ("nodes = 3", 4)])
def test_a_queue_may_have_ceilings_of_its_own(tmp_path: Path, ceiling: str, most: int) -> None:
    """More than the node's, or less; what it does not name stays the node's."""
    policy = read(tmp_path, f"{POLICY}\n[queues.night.ceilings]\n{ceiling}\n")
    night = {"execution_profile": {"queue_name": "night"}}

    assert policy.place(submit(**night, resource_shape={**SHAPE, "cpu": most}))
    (error,) = refusal(policy, **night, resource_shape={**SHAPE, "cpu": most + 1}).errors
    assert (error.field, error.remedy) == ("resource_shape.cpu", f"ask for at most {most}")
    (error,) = refusal(policy, resource_shape={**SHAPE, "cpu": 5}).errors
    assert error.remedy == "ask for at most 4"


def test_a_queue_says_how_many_processes_its_containers_get(tmp_path: Path) -> None:
    policy = read(tmp_path, f"{POLICY}\n[queues.night.ceilings]\nprocesses = 7\n")

    assert policy.place(submit(execution_profile={"queue_name": "night"})).processes == 7
    assert policy.place(submit()).processes == 4096


def test_a_queue_names_its_gpus_and_its_scratch(tmp_path: Path) -> None:
    own = 'gres = "gpu:a100"\nscratch = "/local/scratch"\n'
    policy = read(tmp_path, POLICY.replace("[queues.night]\n", f"[queues.night]\n{own}"))

    placed = policy.place(submit(execution_profile={"queue_name": "night"}))

    assert (placed.gres, placed.scratch) == ("gpu:a100", "/local/scratch")
    assert (policy.place(submit()).gres, policy.place(submit()).scratch) == ("gpu", None)


@pytest.mark.parametrize(
    "line",
    [
        'gres = "gpu:2"\ngres_ = 1',
        'gres = "gpu:a100:2"',
        'gres = "license"',
        'gres = "gpu\\n#SBATCH"',
        'scratch = "local"',
        'scratch = "/local/../etc"',
        'scratch = "/"',
        'scratch = "/a b"',
    ],
)
def test_a_queue_that_slurm_or_a_shell_could_misread_is_no_policy(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(PolicyError, match=r"queues\.night\.(gres|scratch)"):
        read(tmp_path, POLICY.replace("[queues.night]\n", f"[queues.night]\n{line}\n"))


def test_a_queue_may_have_a_runtime_of_its_own(tmp_path: Path) -> None:
    policy = read(
        tmp_path, POLICY.replace("[queues.night]\n", '[queues.night]\nruntime = "podman"\n')
    )

    assert policy.place(submit()).runtime == "bubblewrap"
    assert policy.place(submit(execution_profile={"queue_name": "night"})).runtime == "podman"
    assert policy.runtimes == ["bubblewrap", "podman"]


@pytest.mark.parametrize("name", ["nodes", "tasks_per_node"])
def test_a_runtime_that_runs_no_tasks_is_told(tmp_path: Path, name: str) -> None:
    """The refusal names the queues that would do."""
    text = POLICY.replace("[queues.night]\n", '[queues.night]\nruntime = "pyxis"\n')
    policy = read(tmp_path, text.replace("cpu = 4\n", "cpu = 4\nnodes = 2\n"))
    shape = {**SHAPE, name: 2}

    assert policy.place(submit(resource_shape=shape))
    (error,) = refusal(
        policy, resource_shape=shape, execution_profile={"queue_name": "night"}
    ).errors
    assert error.field == f"resource_shape.{name}"
    assert error.remedy == "leave it out, or use a queue for parallel jobs: main"
    assert policy.place(submit(execution_profile={"queue_name": "night"}))


def test_network_is_the_queues_to_grant(tmp_path: Path) -> None:
    """What asks for none is placed anywhere; the refusal names the queue that would do."""
    text = POLICY.replace("[queues.night]\n", "[queues.night]\nnetwork = true\n")
    online = {"workload": {**submit_body()["workload"], "network": "host"}}
    policy = read(tmp_path, text)

    (error,) = refusal(policy, **online).errors
    assert (error.field, "night" in (error.remedy or "")) == ("workload.network", True)
    assert policy.place(submit(**online, execution_profile={"queue_name": "night"}))
    (error,) = refusal(read(tmp_path), **online).errors
    assert error.remedy == "leave it out, or use a queue that grants it: none does"
    assert policy.place(submit(workload={**submit_body()["workload"], "network": "none"}))


@pytest.mark.parametrize(
    ("profile", "field", "remedy"),
    [
        ({"queue_name": "batch"}, "queue_name", "use one of: main, night"),
        ({"queue_name": "night", "account": "chem-42"}, "account", "use one of: chemistry"),
        ({"queue_name": "night", "qos": "scavenger"}, "qos", "use one of: low"),
        ({"queue_name": "main", "account": "chemistry"}, "account", "use one of: none"),
    ],
    ids=["partition for queue", "raw account", "raw qos", "account of another queue"],
)
def test_an_unknown_entry_names_the_allowed_ones(
    policy: Policy, profile: dict[str, str], field: str, remedy: str
) -> None:
    (error,) = refusal(policy, execution_profile=profile).errors

    assert (error.field, error.remedy) == (f"execution_profile.{field}", remedy)


def test_all_faults_are_told_at_once(policy: Policy) -> None:
    shape = {"cpu": 99, "memory_mib": 99999, "walltime_seconds": 60}
    profile = {"queue_name": "night", "account": "x", "qos": "y"}

    problem = refusal(policy, resource_shape=shape, execution_profile=profile)

    assert [error.field for error in problem.errors] == [
        "resource_shape.cpu",
        "resource_shape.memory_mib",
        "execution_profile.account",
        "execution_profile.qos",
    ]
    assert "4 field(s)" in problem.detail


@pytest.mark.parametrize("reference", [f"localhost/byoc/demo@{DIGEST}", "localhost/byoc/demo:1"])
def test_a_digest_or_a_tag_is_resolved(policy: Policy, reference: str) -> None:
    assert policy.place(submit(workload=image(reference))).image_digest == DIGEST


def test_a_registry_port_is_no_tag(tmp_path: Path) -> None:
    policy = read(tmp_path, POLICY.replace("localhost/byoc/demo", "localhost:5000/demo"))

    assert policy.place(submit(workload=image("localhost:5000/demo:1"))).image_digest == DIGEST


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        (f"localhost/byoc/other@{DIGEST}", "repository"),
        ("demo:1", "repository"),
        (f"localhost/byoc/demo@{OTHER}", "digest"),
        ("localhost/byoc/demo:2", "tag"),
        ("localhost/byoc/demo:latest", "tag"),
    ],
)
def test_an_image_that_is_not_approved_is_refused(
    policy: Policy, reference: str, what: str
) -> None:
    problem = refusal(policy, workload=image(reference))

    assert problem.kind.name == "image-not-allowed"
    assert what in problem.detail
    (error,) = problem.errors
    assert error.field == "workload.image"
    assert DIGEST not in problem.problem().model_dump_json()


def test_an_image_is_fetched_only_by_the_owners_word(tmp_path: Path) -> None:
    """From the repository that was asked for, up to the owner's bound; the decision is part of the placement."""
    before = '[images."localhost/byoc/demo"]\n'
    read_ = read(tmp_path, POLICY.replace(before, f"{before}pull = true\nmax_mib = 7\n"))

    placed = read_.place(submit())

    assert read(tmp_path).place(submit()).pull is None
    assert placed.pull == PullFrom(repository="localhost/byoc/demo", max_mib=7)
    assert Placement.model_validate(placed.model_dump(mode="json", exclude_none=True)) == placed


@pytest.mark.parametrize("repository", ["demo", "acme/demo", "docker.io/demo", "a.example/Demo"])
def test_what_is_to_be_fetched_has_a_whole_name(tmp_path: Path, repository: str) -> None:
    changed = POLICY.replace('"localhost/byoc/demo"]', f'"{repository}"]')
    assert read(tmp_path, changed)

    with pytest.raises(PolicyError, match=r"wrong at images: .*cannot be pulled: "):
        read(tmp_path, changed.replace(f'"{repository}"]', f'"{repository}"]\npull = true'))


def test_i23_a_tenant_whom_the_owner_does_not_know_sees_nothing(policy: Policy) -> None:
    """Not even what the policy would have said about the rest of the command."""
    problem = refusal(policy, tenant_id="stranger", execution_profile={"queue_name": "x"})

    assert problem.problem() == ProblemError("not-found").problem()
