"""What a process answers to probes, and what `coupons ready` makes of it."""

import asyncio
import time
from collections.abc import Mapping

import click
import pytest
from aiormq.connection import Connection as AmqpConnection
from httpx import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette

from coupons import broker, database, health, keepalive
from coupons.health import SILENT, Fact, Health, Probe
from coupons.settings import Settings
from producers.cli.ready import UNEXPLAINED, address, understood, url_of
from workers.loops import RETRY_SECONDS, Signals, work

LACKING = "none is registered on coupons.import"


async def well() -> str | None:
    return None


async def lacking() -> str | None:
    return LACKING


async def broken() -> str | None:
    raise RuntimeError("postgresql://coupons:secret@host/")


async def hanging() -> str | None:
    await asyncio.Event().wait()
    return None


def of(
    outside: Mapping[str, Probe],
    inside: Mapping[str, Fact] | None = None,
    *,
    is_live: bool = True,
    tells_reasons: bool = True,
) -> Health:
    return Health(outside, inside or {}, is_live=lambda: is_live, tells_reasons=tells_reasons)


async def answer(health: Health, path: str = "/readyz") -> Response:
    return (await answers(health, path))[0]


async def answers(health: Health, path: str = "/readyz", *, times: int = 1) -> list[Response]:
    """To so many who ask at the same time."""
    app = Starlette(routes=health.routes())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        return await asyncio.gather(*(client.get(path) for _ in range(times)))


async def test_ready_is_whose_parts_all_are() -> None:
    """200 and a boolean for each; nothing else, because nothing else is to be said."""
    response = await answer(of({"database": well}, {"consumers": lambda: None}))
    assert (response.status_code, response.json()) == (200, {"database": True, "consumers": True})


async def test_what_is_not_ready_is_told_with_its_reason() -> None:
    """503, and a line for each part that is not."""
    response = await answer(of({"database": well}, {"consumers": lambda: LACKING}))
    reasons = {"consumers": LACKING}
    assert (response.status_code, response.json()) == (503, {"database": True, "consumers": False, "reasons": reasons})


async def test_whoever_may_not_know_reasons_is_told_none() -> None:
    """Yes and no only."""
    response = await answer(of({"database": well, "broker": lacking}, tells_reasons=False))
    assert (response.status_code, response.json()) == (503, {"database": True, "broker": False})


async def test_a_probe_that_fails_tells_no_secret() -> None:
    """The error's kind only: its text may hold an address, and an address a password."""
    response = await answer(of({"database": broken}))
    assert response.json()["reasons"] == {"database": "cannot be looked at (RuntimeError)"}


async def test_a_part_that_hangs_is_not_ready_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered in time, again and again, and only one look is under way."""
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.2)
    looks = 0

    async def counted() -> str | None:
        nonlocal looks
        looks += 1
        return await hanging()

    process = of({"database": counted})
    began = time.monotonic()
    for response in [*await answers(process, times=20), await answer(process)]:
        assert (response.status_code, response.json()["reasons"]) == (503, {"database": SILENT})
    assert time.monotonic() - began < 2
    assert looks == 1
    assert (await answer(process, "/livez")).status_code == 200


async def test_who_asks_often_is_answered_from_memory() -> None:
    """A hundred questions at once are one look."""
    looks = 0

    async def counted() -> str | None:
        nonlocal looks
        looks += 1
        return None

    responses = await answers(of({"broker": counted}), times=100)
    assert {response.status_code for response in responses} == {200}
    assert looks == 1


async def test_what_a_process_knows_of_itself_is_told_as_it_is() -> None:
    """Not from memory: who was asked to end is not ready from that moment."""
    asked_to_end: list[str] = []
    process = of({}, {"accepting": lambda: next(iter(asked_to_end), None)})
    assert (await answer(process)).json() == {"accepting": True}
    asked_to_end.append("it was asked to end")
    assert (await answer(process)).json()["accepting"] is False


async def test_a_process_that_has_lost_a_part_of_itself_is_not_live() -> None:
    """503: whoever looks after it starts it anew."""
    response = await answer(of({}, is_live=False), "/livez")
    assert (response.status_code, response.json()) == (503, {"live": False})


async def test_a_role_goes_on_after_a_library_cancelled_what_it_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ends as cancelled is missed by nobody: this one does not, unless it was asked to."""
    monkeypatch.setattr("workers.loops.RETRY_SECONDS", 0.0)
    signals, steps = Signals(("import",)), 0

    async def step() -> float | None:
        nonlocal steps
        steps += 1
        if steps == 1:
            raise asyncio.CancelledError
        signals.stop()
        return None

    await work("import", step, signals, sweep_seconds=60)
    assert steps == 2

    working = asyncio.create_task(work("import", hanging_step, Signals(("import",)), sweep_seconds=60))
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def hanging_step() -> float | None:
    await asyncio.Event().wait()
    return None


def test_an_answer_is_told_in_words() -> None:
    """Each part that is not ready with its reason, or with where to find it."""
    assert understood(200, b'{"database":true}').ready
    worker = understood(503, b'{"database":true,"consumers":false,"reasons":{"consumers":"none on coupons.import"}}')
    assert (worker.ready, worker.lacking) == (False, "consumers: none on coupons.import")
    web = understood(503, b'{"database":false,"broker":false}')
    assert web.lacking == f"database: {UNEXPLAINED}; broker: {UNEXPLAINED}"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b"", b"\xff"])
def test_what_answers_something_else_is_not_ready(body: bytes) -> None:
    """Another program on that port."""
    answer = understood(200, body)
    assert not answer.ready
    assert "neither a worker nor the console" in answer.lacking


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:8080/readyz"),
        ({"health_port": 8081}, "http://127.0.0.1:8081/readyz"),
        ({"health_port": 8081, "health_host": "0.0.0.0"}, "http://127.0.0.1:8081/readyz"),
        ({"web_host": "::", "web_port": 80}, "http://[::1]:80/readyz"),
    ],
)
def test_the_process_on_this_machine_is_asked(settings: dict[str, object], url: str) -> None:
    """The worker where it has a health port, else the console; one that listens everywhere is asked on loopback."""
    assert url_of(Settings(_env_file=None).model_copy(update=settings)) == url


def test_a_console_whose_port_the_system_chose_must_be_named() -> None:
    """COUPONS_WEB_PORT=0 says nothing of where it is."""
    with pytest.raises(click.ClickException, match="--url"):
        url_of(Settings(_env_file=None, web_port=0))


def test_a_url_may_leave_the_path_out() -> None:
    """`--url http://worker:8081` asks for its readiness."""
    assert address("http://worker:8081") == address("http://worker:8081/") == "http://worker:8081/readyz"
    assert address("http://proxy/coupons/readyz") == "http://proxy/coupons/readyz"


def test_the_real_limits_add_up_to_less_than_a_minute() -> None:
    """What is under way when a network falls silent, the pause after it, and a connection that is made anew."""
    statement = database.COMMAND_SECONDS + database.CANCEL_SECONDS + RETRY_SECONDS + database.CONNECT_SECONDS
    grace = (broker.HEARTBEAT_SECONDS + 1) * AmqpConnection.HEARTBEAT_GRACE_MULTIPLIER + broker.HEARTBEAT_SECONDS / 2
    consumer = grace + broker.CLOSE_SECONDS + RETRY_SECONDS + broker.CONNECT_SECONDS
    assert max(statement, consumer, keepalive.SILENCE_SECONDS + RETRY_SECONDS + database.CONNECT_SECONDS) < 60
    assert database.STATEMENT_SECONDS < database.COMMAND_SECONDS < Settings(_env_file=None).lease_seconds
