"""docs/openapi.yaml can be read, and says something of every route."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
ROUTE = re.compile(r'add\(\s*"(/[^"]*)"')


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "docs/openapi.yaml").read_text())
    return found


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_every_route_is_described(document: dict[str, Any]) -> None:
    text = (REPOSITORY / "Sources/CheckpointControl/ControlRoutes.swift").read_text()
    routes = [re.sub(r":(\w+)", r"{\1}", route) for route in ROUTE.findall(text)]
    assert len(routes) > 10
    described = {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}
    for route in routes:
        assert re.sub(r"\{\w+\}", "{}", route) in described, route
