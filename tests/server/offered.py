"""Asks a server for each method that it offers."""

from __future__ import annotations

from typing import Any

from vllm_server import Server

__all__ = ["assert_each_keeps", "methods"]


def methods(server: Server) -> tuple[set[str], set[str]]:
    """The names of the methods that a server offers, and of those that it refuses."""
    cards = server.client.get("/vtprune/methods").json()["methods"]
    offered = {card["name"] for card in cards if card["allowed"]}
    return offered, {card["name"] for card in cards} - offered


def assert_each_keeps(server: Server, content: Any, tokens: int, **settings: Any) -> None:
    """Every method that is offered keeps as many tokens of a picture as are asked for."""
    for name in sorted(methods(server)[0]):
        # A request's own budget has no floor but that of `pixels`, which would keep all.
        asked = {"method": name, "tokens": tokens, "floor": "off", **settings}
        usage = server.ask(content, max_tokens=2, vtprune=asked)["usage"]
        kept = usage["visual_tokens"]["kept"]
        assert kept == tokens or name == "adafv-ref", "the published code keeps fewer"
