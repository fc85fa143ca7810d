"""An agent whose memory outlives its process. It knows nothing but AGENTMEMORY_URL, and needs nothing installed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request

BASE = os.environ["AGENTMEMORY_URL"] + "/v1/agents/scout"
HEADERS = {"AgentMemory-Client": "example", "Content-Type": "application/json"}


def ask(method, path, body=None, **headers):
    """One request; sent again, with the same Idempotency-Key, until it is answered."""
    data = None if body is None else json.dumps(body).encode()
    while True:
        request = urllib.request.Request(BASE + path, data, HEADERS | headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        except OSError:
            pass
        time.sleep(1)


def say(number):
    """One turn: what was done, and the step in the document, together or not at all."""
    event = {"role": "user", "content": f"Step {number}: the survey of sector {number} is done"}
    change = {"merge": {"step": number}}
    body = {"session": "survey", "events": [event], "working_memory": change}
    return ask("POST", "/turns", body, **{"Idempotency-Key": f"survey-{number}"})


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
context = ask("POST", "/hydrate", {"budget": {"tokens": 500}, "restore": True})
step = (context["working_memory"] or {}).get("step", 0)
print(f"woke up at step {step}, with {len(context['recent'])} recent messages", flush=True)
while True:
    step += 1
    receipt = say(step)
    print(f"step {step} acknowledged at {receipt['position']}", flush=True)
    time.sleep(5)
