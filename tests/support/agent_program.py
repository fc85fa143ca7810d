"""The program of a test's agent. It runs in a pod, has nothing but the standard library, and says what it was told:

write AGENT PAUSE    turns with numbers that go on, each sent again until it is acknowledged
read AGENT           once all that was acknowledged is durable, the whole timeline
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import Any

_HEADERS = {"AgentMemory-Client": "test", "Content-Type": "application/json"}
_AGAIN = (408, 503, 504)
"""The statuses that end by themselves."""
_PAUSE = 0.3
_PAGE = 50


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def once(method: str, path: str, body: object, headers: dict[str, str]) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["AGENTMEMORY_URL"] + path, data, _HEADERS | headers, method=method)
    with urllib.request.urlopen(request, timeout=15) as answer:
        return json.load(answer)


def ask(method: str, path: str, body: object = None, **headers: str) -> Any:
    """One request, sent again while it fails for a reason that ends by itself."""
    while True:
        try:
            return once(method, path, body, headers)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code not in _AGAIN:
                say("refused", error.code, text[:300])
                raise
            say("failed", error.code, json.loads(text).get("type", "").rsplit("/", 1)[-1])
        except OSError as error:
            say("failed 0", type(error).__name__)
        time.sleep(_PAUSE)


def whole(path: str) -> Any:
    """A page in which nothing is missing."""
    while (page := ask("GET", path))["degraded"]:
        time.sleep(_PAUSE)
    return page


def write(agent: str, pause: float) -> None:
    path = f"/v1/agents/{agent}"
    found = whole(f"{path}/messages?limit=1")["messages"]
    number = int(found[-1]["content"].split()[-1]) if found else 0
    say("woke", number)
    while True:
        number += 1
        event = {"role": "user", "content": f"turn {number}"}
        body = {"events": [event], "working_memory": {"merge": {"n": number}}}
        receipt = ask("POST", f"{path}/turns", body, **{"Idempotency-Key": f"{agent}-{number}"})
        say("ack", number, receipt["position"])
        time.sleep(pause)


def read(agent: str) -> None:
    path = f"/v1/agents/{agent}/events"
    for last in whole(f"{path}?limit=1&order=desc")["events"]:
        place = {"agent": agent, "position": last["position"]}
        ask("POST", "/v1/consolidation/barrier", {"positions": [place], "until": "durable"})
    contents: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = whole(f"{path}?limit={_PAGE}" + (f"&cursor={cursor}" if cursor else ""))
        contents += [event["content"] for event in page["events"]]
        cursor = page["cursor"]
    say("timeline", json.dumps(contents))


if __name__ == "__main__":
    # The first process of a container has to ask for it; else it goes on for longer than its sidecar.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1] == "write":
        write(sys.argv[2], float(sys.argv[3]))
    else:
        read(sys.argv[2])
