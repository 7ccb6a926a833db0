"""`pytest tests/golden --rewrite` writes what happens as what is expected; review the difference."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the scenarios' output as expected")
