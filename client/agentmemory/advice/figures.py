"""The figures that advice is made from, each with where it comes from.

Bytes: `python -m benchmarks.footprint` (Valkey 9.1, PostgreSQL 18, tables vacuumed), which writes everything in two
sizes and so tells a fixed part from what a thing itself is long. Times and rates: docs/benchmarks.md, on two cores.
"""

from __future__ import annotations

from typing import Final

# Redis, bytes.
JOURNAL_ENTRY: Final = 130
"""A pending turn of one event, beside what the event is long."""
JOURNAL_BYTE: Final = 1.02
WINDOW_ENTRY: Final = 100
"""A recent message, beside what it is long."""
DOCUMENT: Final = 164
"""A working-memory document, beside what it is long."""
IDEMPOTENCY_KEY: Final = 167
"""Of a turn, for 24 hours."""
KEY_HOURS: Final = 24
REDIS_EMPTY: Final = 4 << 20
"""Memory of a server that holds nothing: what INFO says of one, rounded up."""
REDIS_OVERHEAD: Final = 1.09
"""All that Redis takes to the sum of its keys: 1.02 to 1.09 measured."""
REDIS_SHARE: Final = 0.7
"""What the operator lets Redis use of its container's memory; the rest is for buffers and rewrites of its file."""
APPEND_ONLY_FILE: Final = 3
"""Its volume to what it holds: the file grows to twice that before it is written anew, beside the old one."""
EVENT_FRAME: Final = 60
"""JSON around the content of an event: its type, role and time."""
RECENT_MESSAGES: Final = 50

# Postgres, bytes.
EVENT_ROW: Final = 361
"""An event with its indexes, beside what it is long."""
EVENT_BYTE: Final = 1.04
VECTOR_ROW: Final = 731
"""A vector with its indexes, beside its numbers: 2,267 measured at 384 dimensions, less both copies of them."""
VECTOR_COPIES: Final = 2
"""In the table, and in the index that recall reads."""
NUMBER: Final = 2
"""Of a vector: halfvec."""
LARGEST_COVERED: Final = 1280
"""Dimensions up to which the index holds the vector as well."""
SNAPSHOT_ROW: Final = 300
"""A version of a document, beside what it is long; Postgres packs it, and this counts as if it did not."""
SNAPSHOTS: Final = 5
POSTGRES_EMPTY: Final = 40 << 20
"""A new cluster of databases."""
WRITE_AHEAD_LOG: Final = 1 << 30
"""max_wal_size, as PostgreSQL has it."""
ROOM_TO_WORK: Final = 1.25
"""The volume to what it holds, for vacuum, index builds and sorting."""
SHARED_BUFFERS: Final = 128 << 20

LOCAL_DIMENSIONS: Final = 384
TURNS_KEPT: Final = 1000
"""Of each agent in mode Redis, unless `retention.turns` says otherwise; and as many as that takes:"""
MOST_TURNS_KEPT: Final = 100_000

# Times and rates.
EMBEDDED_A_SECOND: Final = 232
"""Short texts that the local model embeds on one core: docs/benchmarks.md, import until searchable."""
RECALL_SECONDS: Final = 0.00082
"""Semantic recall in Postgres, p50, of an agent without events; and for each event:"""
RECALL_SECONDS_AN_EVENT: Final = 0.00000065
"""From 1.14 ms at 500 events and 8.13 ms at 11,304 vectors: docs/benchmarks.md."""
SLOW_RECALL: Final = 0.015
POSTGRES_READS: Final = 200
"""Reads of documents a second up to which Postgres alone is advised: a twentieth of the 4,300 by primary key that one
core served through an HTTP API, so that they leave Postgres to everything else."""
POSTGRES_TURNS: Final = 40
"""Turns a second up to which Postgres alone is advised: a tenth of the 387 transactions a second that one connection
brought to an end, waiting for each commit."""
SIDECAR_IDLE: Final = 48 << 20
SIDECAR_EMBEDDING: Final = 188 << 20
"""docs/benchmarks.md: peak of a sidecar with the local model, during an import. Each pod has a sidecar of its own."""
PLANNED_OUTAGE: Final = 3600
"""Seconds of turns for which Redis gets room where no one says how long Postgres may be down."""
EVERYSEC_WINDOW: Final = 2
"""Seconds of writes that a crash of Redis's machine may take with appendfsync everysec."""
