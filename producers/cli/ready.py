"""`coupons ready`: whether the process on this machine can do what it is there for. Container health checks run it
every few seconds, so it imports little.
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
"""A part that hangs is told after 5 s."""
POLL_SECONDS = 0.5
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nobody listens here
UNEXPLAINED = "not ready; the log of the process says why"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said: each part's name, and why it is not ready, None if it is; or why nothing was said."""

    ready: bool
    parts: Mapping[str, str | None] = field(default_factory=dict)
    silence: str | None = None

    @property
    def lacking(self) -> str:
        return self.silence or "; ".join(f"{name}: {reason}" for name, reason in self.parts.items() if reason)


@click.command()
@click.option("--wait", "seconds", type=click.FloatRange(min=0), default=0.0, help="Ask until it is ready, so long.")
@click.option("--url", help="Where it answers; by default COUPONS_HEALTH_PORT, or the port of `coupons web`.")
@as_json
def ready(seconds: float, url: str | None, json_output: bool) -> None:
    """Whether the worker or the console on this machine is ready; exit code 1, and what is lacking, if not."""
    where = address(url) if url else _local_url()
    answer = _waited(where, seconds)
    if json_output:
        emit_json({"ready": answer.ready, "url": where, "parts": answer.parts, "silence": answer.silence})
    elif answer.ready:
        click.echo(f"ready: {', '.join(answer.parts)}")
    else:
        raise Failed(f"not ready: {answer.lacking}")
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
    """Of the worker on this machine, or, without a health port, of the console. Raises Failed: it may be anywhere."""
    worker, web = (settings.health_host, settings.health_port), (settings.web_host, settings.web_port)
    host, port = worker if settings.health_port else web
    if not port:
        raise Failed("give --url: COUPONS_WEB_PORT is 0, so the console's port is known to its log only")
    host = ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}/readyz" if ":" in host else f"http://{host}:{port}/readyz"


def address(url: str) -> str:
    """With the path of readiness, if it has none."""
    parts = urlsplit(url)
    return url if parts.path.strip("/") else parts._replace(path="/readyz").geturl()


def _waited(url: str, seconds: float) -> Answer:
    """What it answers when it is ready, or in the end; what is lacking meanwhile goes to stderr, each change once."""
    deadline, told = time.monotonic() + seconds, ""
    while True:
        answer = ask(url)
        if answer.ready or time.monotonic() + POLL_SECONDS > deadline:
            return answer
        if answer.lacking != told:
            click.echo(f"waiting: {answer.lacking}", err=True)
            told = answer.lacking
        time.sleep(POLL_SECONDS)


def ask(url: str) -> Answer:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    try:
        # Straight to it: no proxy of the environment knows the processes of this machine.
        with build_opener(ProxyHandler({})).open(url, timeout=ANSWER_SECONDS) as reply:
            return understood(reply.status, reply.read())
    except HTTPError as error:
        return understood(error.code, error.read())
    except (OSError, HTTPException, ValueError):
        silence = f"nothing answers at {url}; a worker does only with COUPONS_HEALTH_PORT"
        return Answer(ready=False, silence=silence)


def understood(status: int, body: bytes) -> Answer:
    """A boolean for each part, and the reasons of those that are not ready, where they are told."""
    try:
        said = json.loads(body)
        reasons = said.pop("reasons", {})
        parts = {name: None if said[name] else str(reasons.get(name, UNEXPLAINED)) for name in ("database", *said)}
    except (ValueError, AttributeError, TypeError, KeyError):
        return Answer(ready=False, silence=f"what answers is neither a worker nor the console (HTTP {status})")
    return Answer(ready=status == 200, parts=parts)
