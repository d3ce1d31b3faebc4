"""What strings of an order may hold: names of files, variables and images, and no control character anywhere."""

from __future__ import annotations

import unicodedata

import jsonschema
import pytest

from aiida_byoc.contracts.base import no_control_characters
from aiida_byoc.contracts.commands import CancelJobCommand, SubmitJobCommand
from aiida_byoc.contracts.validation import validated
from aiida_byoc.runtimes.in_job.globs import Pattern
from tests.contracts.messages import changed, golden, refused

CANARY = "CANARY"
ORDERS = {"submit-job-command.full": SubmitJobCommand, "cancel-job-command.full": CancelJobCommand}
IMAGE = "must be repository@sha256"
INSIDE = "must be a relative path"

BAD_PATHS = [
    ("", "at least 1"), ("/etc/passwd", INSIDE), ("..", INSIDE), ("../a", INSIDE), ("a/../b", INSIDE), (".", INSIDE),
    ("./a", INSIDE), ("a//b", INSIDE), ("a/", INSIDE), ("-x", "begin with '-'"), ("a/-x", "begin with '-'"),
    ("a*", "must not contain any of"), ("a?", "must not contain any of"), ("[a]", "must not contain any of"),
    ("a\\b", "must not contain any of"), (unicodedata.normalize("NFD", "é"), "normal form NFC"),
    ("x" * 256, "255 bytes"), ("é" * 128, "255 bytes"), ("x/" * 256 + "x", "at most 512"), ("a\0", "control"),
]  # fmt: skip

CONTROL = ["\x00", "\t", "\n", "\r", "\x1b", "\x7f", "\x80", "\x9f", "\u2028", "\u2029", "\ud800"]


def strings(value, prefix=""):
    """Dotted paths of every string in a message."""
    if isinstance(value, str):
        yield prefix.rstrip(".")
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings(item, f"{prefix}{key}.")


@pytest.mark.parametrize(("name", "words"), BAD_PATHS)
@pytest.mark.parametrize("place", ["workload.inputs.0.name", "workload.outputs.0.name"])
def test_a_file_name_must_stay_below_the_working_directory(place, name, words):
    problem = refused(SubmitJobCommand, changed(golden("submit-job-command.full"), place, name))

    assert [error.field for error in problem.errors] == [place]
    assert words in problem.errors[0].message


@pytest.mark.parametrize(
    ("name", "words"), [*BAD_PATHS, *((f"a{each}b", "must not") for each in ":,{}")]
)
def test_a_name_at_which_something_is_mounted_is_plainer_still(name, words):
    message = changed(golden("submit-job-command.inputs"), "workload.inputs.2.name", name)

    [error] = refused(SubmitJobCommand, message).errors
    assert error.field == "workload.inputs.2.name"
    assert words in error.message


@pytest.mark.parametrize(
    "path",
    ["", "a", "/", "//", "/a/", "/a//b", "/a/./b", "/a/..", "/../a", "a/b", "~/a", "/" + "x" * 4096, "/a\n"],
)  # fmt: skip
def test_a_path_is_absolute_and_has_one_spelling(path):
    message = changed(golden("submit-job-command.inputs"), "workload.inputs.2.path", path)

    assert [error.field for error in refused(SubmitJobCommand, message).errors] == [
        "workload.inputs.2.path"
    ]


@pytest.mark.parametrize("path", ["/a", "/a/b c", "/é/:,{}*?[]", "/a\\b", "/..."])
def test_any_other_absolute_path_passes(path):
    message = changed(golden("submit-job-command.inputs"), "workload.inputs.2.path", path)

    assert validated(SubmitJobCommand, message).workload.inputs[2].path == path


@pytest.mark.parametrize(
    "url",
    ["https://a", "https://a/", "https://a.b-c.example:8443/x?y=z&w=%20", "https://1.2.3.4/x", "https://a?b", "https://a:65535/"],
)  # fmt: skip
def test_a_url_is_plain_https(url):
    message = changed(golden("submit-job-command.inputs"), "workload.inputs.4.url", url)

    assert validated(SubmitJobCommand, message).workload.inputs[4].url == url
    jsonschema.validate(message, SubmitJobCommand.model_json_schema())


@pytest.mark.parametrize(
    "url",
    ["", "http://a/", "HTTPS://a/", "https:///a", "https://A/", "https://a:0/", "https://a:65536/", "https://a:b/",
     "https://me@a/", "https://me:pw@a/", "https://a/#b", "https://a b/", "https://a/ b", "https://é/", "https://a/é",
     "https://[::1]/", "https://-a/", "https://a\\b/", "ftp://a/", "file:///etc/passwd", "//a/b", "https://a/\n"],
)  # fmt: skip
def test_anything_else_is_no_url(url):
    message = changed(golden("submit-job-command.inputs"), "workload.inputs.4.url", url)

    [error] = refused(SubmitJobCommand, message).errors
    assert error.field == "workload.inputs.4.url"
    assert url == "" or url not in error.message


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        *((name, words) for name, words in BAD_PATHS if words != "must not contain any of"),
        ("../*", INSIDE), ("/*", INSIDE), ("**/../a", INSIDE), ("a**", "as a whole part"), ("a/b**/c", "as a whole"),
        ("[", "close each"), ("a]", "close each"), ("[]", "close each"), ("[!]", "close each"), ("[[a]", "close each"),
        ("\\*", "close each"), ("[a/b]", "close each"),
    ],
)  # fmt: skip
def test_a_pattern_must_stay_below_the_working_directory_and_be_well_formed(glob, words):
    message = changed(golden("submit-job-command.outputs"), "workload.outputs.0", {"glob": glob})

    [error] = refused(SubmitJobCommand, message).errors
    assert error.field == "workload.outputs.0.glob"
    assert words in error.message


@pytest.mark.parametrize(
    "glob", ["*", "**", "a/**/*.[ch]pp", "[!.]*", "?", "a", ".*/x", "[a-z]*[-9]"]
)
def test_well_formed_patterns_pass(glob):
    message = changed(golden("submit-job-command.outputs"), "workload.outputs.0", {"glob": glob})

    command = validated(SubmitJobCommand, message)
    assert command.workload.outputs[0].glob == glob
    Pattern(glob).matches("a")


@pytest.mark.parametrize(
    "name", ["a", "a/b/c", "...", "a..b", ".hidden", "a b", "é", "x" * 255, "$(rm)", "a;b"]
)
def test_file_names_that_mean_nothing_to_us_pass(name):
    message = changed(golden("submit-job-command.full"), "workload.outputs.0.name", name)

    assert validated(SubmitJobCommand, message).workload.outputs[0].name == name


@pytest.mark.parametrize(
    "name",
    ["PATH", "ENV", "IFS", "BASH_ENV", "LD_PRELOAD", "PYTHONPATH", "BYOC_X", "SLURM_JOB_ID", "SBATCH_QOS",
     "APPTAINER_BIND", "SINGULARITYENV_A", "HTTP_PROXY", "NO_PROXY"],
)  # fmt: skip
def test_a_reserved_variable_is_refused(name):
    message = changed(golden("submit-job-command.full"), f"workload.env.{name}", CANARY)

    [error] = refused(SubmitJobCommand, message).errors
    assert error.field == f"workload.env.{name}"
    assert "is reserved" in error.message


@pytest.mark.parametrize(
    "name", ["A", "_", "PATHS", "MY_PATH", "LANG", "OMP_NUM_THREADS", "A" * 64]
)
def test_other_variables_pass(name):
    validated(
        SubmitJobCommand, changed(golden("submit-job-command.full"), f"workload.env.{name}", "")
    )


@pytest.mark.parametrize(
    "image",
    ["a:1", "localhost/byoc/demo:1", "localhost:5000/a/b:v1.2-rc_3", f"r.example/a__b/c-d@sha256:{'0' * 64}"],
)  # fmt: skip
def test_an_image_is_a_repository_with_a_tag_or_a_digest(image):
    validated(SubmitJobCommand, changed(golden("submit-job-command.full"), "workload.image", image))


@pytest.mark.parametrize(
    "image",
    ["", "a", "A:1", "a b:1", "a:1 ", "a:1\n", "-a:1", "/a:1", "a//b:1", "a..b:1", "../a:1", "docker://a:1", "a:",
     "a:-1", "a@sha256:0", f"a@sha256:{'g' * 64}", f"a@sha512:{'0' * 64}", f"a/b:1@sha256:{'0' * 64}",
     f"a@sha256:{'0' * 64}\n", f"a:{'x' * 129}", f"{'a' * 254}:1", "é:1", "a:$(id)"],
)  # fmt: skip
def test_anything_else_is_no_image(image):
    [error] = refused(
        SubmitJobCommand, changed(golden("submit-job-command.full"), "workload.image", image)
    ).errors

    assert error.field == "workload.image"
    assert IMAGE in error.message or "at most 255 characters" in error.message


@pytest.mark.parametrize("character", CONTROL, ids=lambda one: f"U+{ord(one):04X}")
@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name in ORDERS for field in strings(golden(name))]
)
def test_no_string_takes_a_control_character(name, field, character):
    """Tab, line feed and carriage return pass in the text of an input file, and nowhere else."""
    message = changed(golden(name), field, f"a{character}b")
    if field == "workload.inputs.0.text" and character in "\t\n\r":
        assert validated(ORDERS[name], message).workload.inputs[0].text == f"a{character}b"
        return

    assert [error.field for error in refused(ORDERS[name], message).errors] == [field]


def test_the_refused_characters_are_those_of_the_categories():
    wrong = {
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in {"Cc", "Cs", "Zl", "Zp"}
    }

    assert set(CONTROL) <= wrong
    for character in CONTROL:
        with pytest.raises(ValueError, match=f"U\\+{ord(character):04X}"):
            no_control_characters(character)
    assert no_control_characters("é\u00a0\u200b🙂") == "é\u00a0\u200b🙂"


def test_a_control_character_in_a_name_of_the_senders_choice_reaches_no_log():
    message = changed(golden("submit-job-command.full"), "a\n\x1b[31mb", 1)

    problem = refused(SubmitJobCommand, message)

    assert [error.field for error in problem.errors] == ["a??[31mb"]
    assert "\n" not in problem.detail
