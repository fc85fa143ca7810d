from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentmemory_operator import logins
from agentmemory_operator.logins import Changes
from agentmemory_operator.spec import STORES

NOW = datetime(2026, 11, 24, tzinfo=UTC)
FIRST = {
    "redis-username": "am_1", "redis-password": "r1", "postgres-username": "am_1", "postgres-password": "p1",
}  # fmt: skip
PASSWORDS = {"redis": "r2", "postgres": "p2"}


def applied(data: dict[str, str], changes: Changes) -> dict[str, str]:
    return {key: value for key, value in (data | changes).items() if value is not None}


def test_a_rotation_from_end_to_end() -> None:
    begun = applied(FIRST, logins.begin(FIRST, "today", PASSWORDS))
    assert logins.current(begun, STORES) == logins.current(FIRST, STORES), "sidecars go on with what they have"
    upcoming = logins.upcoming(begun, STORES)
    assert upcoming is not None
    assert (upcoming.redis.username, upcoming.redis.password) == ("am_2", "r2")
    assert (upcoming.postgres.username, upcoming.postgres.password) == ("am_2", "p2")
    assert len(logins.all_of(begun, STORES)) == 2

    promoted = applied(begun, logins.promote(begun, NOW, STORES))
    assert logins.current(promoted, STORES) == upcoming
    assert logins.upcoming(promoted, STORES) is None
    assert [logins.retired(promoted, store) for store in STORES] == ["am_1", "am_1"]
    assert len(logins.all_of(promoted, STORES)) == 2, "the former one goes on working for a while"

    over = applied(promoted, logins.forget(promoted))
    assert set(over) == {*FIRST, "rotation"}
    assert over["rotation"] == "today"
    assert logins.all_of(over, STORES) == [upcoming]


def test_the_next_rotation_takes_the_first_login_again() -> None:
    data = applied(FIRST, logins.begin(FIRST, "one", PASSWORDS))
    data = applied(data, logins.promote(data, NOW, STORES))
    data = applied(data, logins.forget(data))
    data = applied(data, logins.begin(data, "two", PASSWORDS))
    assert data["next-redis-username"] == "am_1"


@pytest.mark.parametrize("wanted", ["", "done"])
def test_no_rotation_unless_a_new_one_is_asked_for(wanted: str) -> None:
    assert logins.begin(FIRST | {"rotation": "done"}, wanted, PASSWORDS) == {}


def test_no_rotation_while_one_is_under_way() -> None:
    begun = applied(FIRST, logins.begin(FIRST, "one", PASSWORDS))
    assert logins.begin(begun, "two", {"redis": "r3", "postgres": "p3"}) == {}
    promoted = applied(begun, logins.promote(begun, NOW, STORES))
    assert logins.begin(promoted, "two", {"redis": "r3", "postgres": "p3"}) == {}


def test_the_former_login_has_its_time() -> None:
    data = applied(FIRST, logins.begin(FIRST, "one", PASSWORDS))
    data = applied(data, logins.promote(data, NOW, STORES))
    assert logins.remaining(FIRST, NOW, 60.0) is None
    assert logins.remaining(data, NOW + timedelta(seconds=20), 60.0) == 40.0
    assert logins.remaining(data, NOW + timedelta(seconds=61), 60.0) == 0.0


@pytest.mark.parametrize("store", STORES)
def test_of_one_store_only_its_own_login_rotates(store: str) -> None:
    first = {f"{store}-{part}": FIRST[f"{store}-{part}"] for part in ("username", "password")}
    begun = applied(first, logins.begin(first, "today", {store: "new"}))
    upcoming = logins.upcoming(begun, (store,))
    assert upcoming is not None
    assert {name: login.username for name, login in upcoming.by_store.items()} == {store: "am_2"}
    promoted = applied(begun, logins.promote(begun, NOW, (store,)))
    assert logins.retired(promoted, store) == "am_1"
    over = applied(promoted, logins.forget(promoted))
    assert set(over) == {*first, "rotation"}
    assert logins.all_of(over, (store,)) == [upcoming]
