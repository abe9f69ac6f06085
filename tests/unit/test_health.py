"""The health checks of a process, and how `coupons ready` reads them."""

import asyncio
import time
from collections.abc import Mapping

import click
import pytest
from aiormq.connection import Connection as AmqpConnection
from httpx import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette

from coupons import broker, database, health, keepalive
from coupons.health import NO_RESPONSE, Fact, Health, Probe
from coupons.settings import Settings
from producers.cli.ready import UNEXPLAINED, address, parse_answer, url_of
from workers.loops import RETRY_SECONDS, Signals, work

REASON = "no consumer on coupons.import"


async def succeeds() -> str | None:
    return None


async def fails() -> str | None:
    return REASON


async def raises() -> str | None:
    raise RuntimeError("postgresql://coupons:secret@host/")


async def hangs() -> str | None:
    await asyncio.Event().wait()
    return None


def process(
    outside: Mapping[str, Probe],
    inside: Mapping[str, Fact] | None = None,
    *,
    is_live: bool = True,
    shows_reasons: bool = True,
) -> Health:
    return Health(outside, inside or {}, is_live=lambda: is_live, shows_reasons=shows_reasons)


async def answer(health: Health, path: str = "/readyz") -> Response:
    return (await answers(health, path))[0]


async def answers(health: Health, path: str = "/readyz", *, times: int = 1) -> list[Response]:
    """Return the responses to this number of concurrent requests."""
    app = Starlette(routes=health.routes())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        return await asyncio.gather(*(client.get(path) for _ in range(times)))


async def test_a_process_is_ready_if_all_its_parts_are() -> None:
    """The response is 200 with a boolean for each part, and no reasons."""
    response = await answer(process({"database": succeeds}, {"consumers": lambda: None}))
    assert (response.status_code, response.json()) == (200, {"database": True, "consumers": True})


async def test_a_part_that_is_not_ready_is_reported_with_its_reason() -> None:
    """The response is 503, with one line for each part that is not ready."""
    response = await answer(process({"database": succeeds}, {"consumers": lambda: REASON}))
    reasons = {"consumers": REASON}
    assert (response.status_code, response.json()) == (503, {"database": True, "consumers": False, "reasons": reasons})


async def test_reasons_can_be_hidden() -> None:
    """A public health check contains booleans only."""
    response = await answer(process({"database": succeeds, "broker": fails}, shows_reasons=False))
    assert (response.status_code, response.json()) == (503, {"database": True, "broker": False})


async def test_a_probe_that_raises_reveals_no_secret() -> None:
    """Only the kind of error is shown, because its text may contain a URL with a password."""
    response = await answer(process({"database": raises}))
    assert response.json()["reasons"] == {"database": "check failed (RuntimeError)"}


async def test_a_part_that_hangs_is_not_ready_and_delays_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is answered in time, and only one probe runs."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.2)
    probes = 0

    async def counted() -> str | None:
        nonlocal probes
        probes += 1
        return await hangs()

    checked = process({"database": counted})
    began = time.monotonic()
    for response in [*await answers(checked, times=20), await answer(checked)]:
        assert (response.status_code, response.json()["reasons"]) == (503, {"database": NO_RESPONSE})
    assert time.monotonic() - began < 2
    assert probes == 1
    assert (await answer(checked, "/livez")).status_code == 200


async def test_frequent_requests_are_answered_from_a_cache() -> None:
    """A hundred concurrent requests cause one probe."""
    probes = 0

    async def counted() -> str | None:
        nonlocal probes
        probes += 1
        return None

    responses = await answers(process({"broker": counted}), times=100)
    assert {response.status_code for response in responses} == {200}
    assert probes == 1


async def test_facts_inside_the_process_are_never_cached() -> None:
    """As soon as a process is asked to stop, it is not ready."""
    reasons: list[str] = []
    checked = process({}, {"accepting": lambda: next(iter(reasons), None)})
    assert (await answer(checked)).json() == {"accepting": True}
    reasons.append("shutting down")
    assert (await answer(checked)).json()["accepting"] is False


async def test_a_process_that_has_lost_a_loop_is_not_live() -> None:
    """The response is 503, so that the process is restarted."""
    response = await answer(process({}, is_live=False), "/livez")
    assert (response.status_code, response.json()) == (503, {"live": False})


async def test_a_role_continues_after_a_library_cancelled_its_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of a role ends only when it is cancelled itself; otherwise its task would end without any log event."""
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


def test_a_response_is_shown_in_words() -> None:
    """Each part that is not ready is shown with its reason, or with a hint where to find it."""
    assert parse_answer(200, b'{"database":true}').ready
    worker = parse_answer(503, b'{"database":true,"consumers":false,"reasons":{"consumers":"none on coupons.import"}}')
    assert (worker.ready, worker.problems) == (False, "consumers: none on coupons.import")
    web = parse_answer(503, b'{"database":false,"broker":false}')
    assert web.problems == f"database: {UNEXPLAINED}; broker: {UNEXPLAINED}"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b"", b"\xff"])
def test_another_program_on_the_port_is_not_ready(body: bytes) -> None:
    """The response of another program is not a health check."""
    answer = parse_answer(200, body)
    assert not answer.ready
    assert "neither a worker nor the console" in answer.problems


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
    """The worker is asked if it has a health port, otherwise the console.

    A process that listens on all addresses is asked on loopback.
    """
    assert url_of(Settings(_env_file=None).model_copy(update=settings)) == url


def test_a_console_on_an_unknown_port_needs_a_url() -> None:
    """With COUPONS_WEB_PORT=0 the system chooses the port, so `coupons ready` cannot know it."""
    with pytest.raises(click.ClickException, match="--url"):
        url_of(Settings(_env_file=None, web_port=0))


def test_a_url_without_a_path_means_readiness() -> None:
    """`--url http://worker:8081` asks for `/readyz`."""
    assert address("http://worker:8081") == address("http://worker:8081/") == "http://worker:8081/readyz"
    assert address("http://proxy/coupons/readyz") == "http://proxy/coupons/readyz"


def test_the_real_limits_add_up_to_less_than_a_minute() -> None:
    """They are the limits of a pending statement when the network falls silent, of the retry delay and of a new
    connection.
    """
    statement = database.COMMAND_SECONDS + database.CANCEL_SECONDS + RETRY_SECONDS + database.CONNECT_SECONDS
    grace = (broker.HEARTBEAT_SECONDS + 1) * AmqpConnection.HEARTBEAT_GRACE_MULTIPLIER + broker.HEARTBEAT_SECONDS / 2
    consumer = grace + broker.CLOSE_SECONDS + RETRY_SECONDS + broker.CONNECT_SECONDS
    assert max(statement, consumer, keepalive.SILENCE_SECONDS + RETRY_SECONDS + database.CONNECT_SECONDS) < 60
    assert database.STATEMENT_SECONDS < database.COMMAND_SECONDS < Settings(_env_file=None).lease_seconds
