"""The cluster tests: skipped, each by its name, where no cluster for tests is at hand."""

from __future__ import annotations

import pytest

from support.at_hand import why_none


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_cluster = [item for item in items if item.get_closest_marker("cluster")]
    if on_cluster and (reason := why_none()):
        for item in on_cluster:
            item.add_marker(pytest.mark.skip(reason=f"no test cluster: {reason}"))
