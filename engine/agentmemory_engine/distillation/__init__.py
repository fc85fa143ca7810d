"""Distillation: facts drawn from the events of a session that has ended, by a model behind a chat endpoint.

It is off unless it is asked for, and never in the way of durability: a session that ends leaves a row in a queue, in
the transaction that ends it, and all else happens later.
"""

from __future__ import annotations

from agentmemory_engine.distillation.chat import Chat, OpenAIChat
from agentmemory_engine.distillation.queue import Distillations
from agentmemory_engine.distillation.setup import Setup, make_distillation
from agentmemory_engine.distillation.worker import Bounds, Distiller

__all__ = ["Bounds", "Chat", "Distillations", "Distiller", "OpenAIChat", "Setup", "make_distillation"]
