"""Whatever the routes' OpenAPI allows, and what it does not, is answered without a 5xx."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from media import photo_question
from schemathesis import GenerationMode
from vllm_server import Server

from vllm_pruner.settings.config import PruneConfig

pytestmark = pytest.mark.server

ROUTES = ["config", "methods", "estimate", "explain", "compare"]
EXAMPLES = 40
"""Of each route, half of them valid by the schema: a quarter of a minute in all."""


def _method(route: str) -> str:
    return "GET" if route in ("config", "methods") else "POST"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
@pytest.mark.parametrize("route", ROUTES)
def test_no_body_is_a_server_error(route: str, mode: GenerationMode, pruned: Server) -> None:
    path, method = f"/vtprune/{route}", _method(route)
    if method == "GET" and mode is GenerationMode.NEGATIVE:
        pytest.skip("there is nothing to be wrong in a request without body and parameters")
    schema = schemathesis.openapi.from_dict(pruned.client.get("/openapi.json").json())
    cases = schema[path][method].as_strategy(generation_mode=mode)

    @seed(20261125)
    @settings(
        max_examples=EXAMPLES // 2,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: schemathesis.Case) -> None:
        response = case.call(base_url=pruned.url, timeout=60)
        assert response.status_code < 500, f"{case.as_curl_command()}\n{response.text}"
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    ask()


WORDS = st.text(max_size=8) | st.sampled_from(["vispruner", "adafv", "resize", "prumerge+"])
NUMBERS = st.integers(-3, 600) | st.floats(allow_nan=False) | st.integers(-(2**70), 2**70)
OPTIONS = st.dictionaries(
    st.sampled_from(["step", "important_ratio", "reserve", "temperature", "alpha", "seed", "x"]),
    NUMBERS | WORDS | st.none(),
    max_size=2,
)
OBJECTS = {"options"}
"""The keys whose value is an object."""
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        key: NUMBERS | st.none() | (OPTIONS if key in OBJECTS else WORDS)
        for key in PruneConfig.model_fields
    }
    | {"detail": st.lists(st.sampled_from(["low", "tiny"]), max_size=2)},
)
"""Nearly settings: with options that the schema leaves open, because they are a method's own."""


@pytest.mark.parametrize("route", ["estimate", "explain", "compare"])
def test_no_settings_are_a_server_error(route: str, pruned: Server) -> None:
    messages = [{"role": "user", "content": photo_question(0)}]

    @seed(20261125)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(said=SETTINGS)
    def ask(said: dict[str, object]) -> None:
        body = {
            "estimate": {"images": [{"width": 640, "height": 480}], "vtprune": said},
            "explain": {"messages": messages, "vtprune": said, "overlay": False},
            "compare": {"messages": messages, "settings": [said], "max_tokens": 1},
        }[route]
        response = pruned.client.post(f"/vtprune/{route}", json=body)
        assert response.status_code in (200, 400), f"{said}\n{response.text}"

    ask()
    assert pruned.text(photo_question(0))
