"""The JSON Schema files say what the models say."""

from __future__ import annotations

import jsonschema
import pytest

from aiida_byoc.contracts.schemas import SURFACES, main, schema_text
from tests.contracts.messages import DOCUMENTS

SCHEMAS = DOCUMENTS / "schemas"
REGENERATE = "run `.venv/bin/python -m aiida_byoc.contracts.schemas docs/contracts/schemas`"


@pytest.mark.parametrize("name", SURFACES)
def test_a_schema_file_is_current(name):
    current = (SCHEMAS / f"{name}.json").read_text() == schema_text(SURFACES[name])

    assert current, f"{name}.json is not what the model says: {REGENERATE}, and see README.md there"


def test_there_is_one_file_per_surface_and_no_other(tmp_path):
    main(tmp_path)

    written = {path.name for path in tmp_path.iterdir()}
    assert written == {path.name for path in SCHEMAS.iterdir()}
    assert written == {f"{name}.json" for name in SURFACES}


@pytest.mark.parametrize("name", SURFACES)
def test_a_schema_is_itself_valid_and_closed_where_orders_are_received(name):
    schema = SURFACES[name].model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    closed = {"Order": False, "Fact": None}[SURFACES[name].__bases__[0].__name__]

    assert schema.get("additionalProperties") is closed
