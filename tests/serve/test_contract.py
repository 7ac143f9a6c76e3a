"""What OpenAPI allows is accepted, and what is sent back is what it describes."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")

OPERATIONS = [
    "GET /health",
    "GET /ready",
    "GET /v1/models",
    "POST /v1/scans",
    "POST /v1/predict",
    "POST /v1/explain",
]


@pytest.fixture(scope="module")
def schema(address):
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


def operations(schema):
    return {result.ok().label: result.ok() for result in schema.get_all_operations()}


def test_every_operation_is_checked(schema):
    assert sorted(operations(schema)) == sorted(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_request_that_the_schema_allows_is_accepted(schema, label):
    operation = operations(schema)[label]
    statuses = set()

    @settings(
        max_examples=40 if label.startswith("POST") else 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def send(case):
        statuses.add(case.call_and_validate(timeout=60).status_code)

    send()
    assert statuses == {200}
