"""`coupons ready`: whether the local worker or console is ready. Container health checks run it every few seconds, so
it imports little.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from producers.cli.output import as_json, emit_json
from producers.cli.runtime import FAILED, Failed

if TYPE_CHECKING:
    from coupons.settings import Settings

ANSWER_SECONDS = 8
"""A probe that hangs is reported after 5 s, so a longer wait is useless."""
POLL_SECONDS = 0.5
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
UNEXPLAINED = "not ready; see its log"


@dataclass(frozen=True, slots=True)
class Answer:
    """A health check's reply: why each part is not ready (None if it is), or `error` if there was no usable reply."""

    ready: bool
    parts: Mapping[str, str | None] = field(default_factory=dict)
    error: str | None = None

    @property
    def problems(self) -> str:
        return self.error or "; ".join(f"{name}: {reason}" for name, reason in self.parts.items() if reason)


@click.command()
@click.option("--wait", "seconds", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Poll for up to SECONDS until it is ready.")  # fmt: skip
@click.option("--url", help="URL to check.  [default: the worker's COUPONS_HEALTH_PORT, or the console's port]")
@as_json
def ready(seconds: float, url: str | None, json_output: bool) -> None:
    """Check whether the local worker or console is ready.

    If it is not ready, prints the reasons and exits with code 1.
    """
    where = address(url) if url else _local_url()
    answer = _poll(where, seconds)
    if json_output:
        emit_json({"ready": answer.ready, "url": where, "parts": answer.parts, "error": answer.error})
    elif answer.ready:
        click.echo(f"ready: {', '.join(answer.parts)}")
    else:
        raise Failed(f"not ready: {answer.problems}")
    if not answer.ready:
        raise SystemExit(FAILED)


def _local_url() -> str:
    from coupons.errors import UserError
    from coupons.settings import load_settings

    try:
        return url_of(load_settings())
    except UserError as error:
        raise Failed(str(error)) from None


def url_of(settings: "Settings") -> str:
    """Return the URL of the local worker or, if it has no health port, of the console. Raises Failed without a port."""
    worker, web = (settings.health_host, settings.health_port), (settings.web_host, settings.web_port)
    host, port = worker if settings.health_port else web
    if not port:
        raise Failed("pass --url: COUPONS_WEB_PORT is 0, so the console's port is only known from its log")
    host = ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}/readyz" if ":" in host else f"http://{host}:{port}/readyz"


def address(url: str) -> str:
    """Return the URL; if it has no path, add that of the readiness check."""
    parts = urlsplit(url)
    return url if parts.path.strip("/") else parts._replace(path="/readyz").geturl()


def _poll(url: str, seconds: float) -> Answer:
    """Ask until the process is ready or the time is over, and return the last answer. New reasons go to stderr."""
    deadline, printed = time.monotonic() + seconds, ""
    while True:
        answer = ask(url)
        if answer.ready or time.monotonic() + POLL_SECONDS > deadline:
            return answer
        if answer.problems != printed:
            click.echo(f"waiting: {answer.problems}", err=True)
            printed = answer.problems
        time.sleep(POLL_SECONDS)


def ask(url: str) -> Answer:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    try:
        # Bypass proxies: the process is on this machine.
        with build_opener(ProxyHandler({})).open(url, timeout=ANSWER_SECONDS) as reply:
            return parse_answer(reply.status, reply.read())
    except HTTPError as error:
        return parse_answer(error.code, error.read())
    except (OSError, HTTPException, ValueError):
        error_text = f"no response from {url} (workers serve health checks only if COUPONS_HEALTH_PORT is set)"
        return Answer(ready=False, error=error_text)


def parse_answer(status: int, body: bytes) -> Answer:
    """Parse the reply: a boolean for each part and, if the process reports them, the reasons of unready parts."""
    try:
        answer = json.loads(body)
        reasons = answer.pop("reasons", {})
        parts = {name: None if answer[name] else str(reasons.get(name, UNEXPLAINED)) for name in ("database", *answer)}
    except (ValueError, AttributeError, TypeError, KeyError):
        return Answer(ready=False, error=f"the URL is served by neither a worker nor the console (HTTP {status})")
    return Answer(ready=status == 200, parts=parts)
