"""What goes between the engine and the worker process: a length (four bytes, big-endian) and so much MessagePack."""

from __future__ import annotations

import struct

import msgspec

from agentmemory_engine.embedding.vector import Vector

LENGTH = struct.Struct(">I")

Request = list[str]
"""Texts to embed."""

Reply = list[Vector]
"""The vector of each text, in order."""

_encoder = msgspec.msgpack.Encoder()
_request = msgspec.msgpack.Decoder(Request)
_reply = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """A whole frame. Raises UnicodeEncodeError for a text that is not Unicode (a lone surrogate)."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_request(body: bytes) -> Request:
    """Raises msgspec.DecodeError."""
    return _request.decode(body)


def decode_reply(body: bytes) -> Reply:
    """Raises msgspec.DecodeError."""
    return _reply.decode(body)
