"""Writes helm/agentmemory/README.md from the comments of values.yaml: python tools/chart_readme.py"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "helm" / "agentmemory"
PAGE = CHART / "README.md"
_KEY = re.compile(r"( *)([A-Za-z]+):(.*)")

HEAD = """# The AgentMemory chart

Made by `make docs` from `values.yaml`. For Helm 3 and Helm 4, on Kubernetes 1.29 or newer:

```sh skip
helm install agentmemory helm/agentmemory --namespace agentmemory-system --create-namespace --wait
```

The CRD is installed and upgraded with the chart. One that was applied by other means before needs `--take-ownership`,
and with Helm 4 `--force-conflicts`. `helm uninstall` leaves the CRD, every AgentMemory and its data (`crds.keep`).

| value | default | is |
| --- | --- | --- |
"""


def render(text: str) -> str:
    """The page, in Markdown, from the text of values.yaml."""
    values = yaml.safe_load(text)
    rows = (f"| `{path}` | `{json.dumps(_at(values, path))}` | {comment} |" for path, comment in described(text))
    return HEAD + "\n".join(rows) + "\n"


def described(text: str) -> Iterator[tuple[str, str]]:
    """The path of each value that has a comment, and the comment. Raises ValueError for a value that has none."""
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines()[2:]:
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
        elif match := _KEY.fullmatch(line):
            depth = len(match[1]) // 2
            path = [*path[:depth], match[2]]
            if comment:
                yield ".".join(path), " ".join(comment)
            elif match[3] and not _is_described(path):
                raise ValueError(f"{'.'.join(path)} has no comment")
            comment = []
        else:
            comment = []


def _is_described(path: list[str]) -> bool:
    """Members of `resources` are described by it."""
    return "resources" in path[:-1]


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def main() -> None:
    PAGE.write_text(render((CHART / "values.yaml").read_text()))


if __name__ == "__main__":
    main()
