"""Run child processes that end when the block that started them ends."""

import os
import pwd
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coupons.errors import UserError

POLL_SECONDS = 0.05
STOP_LIMIT_SECONDS = 20
LOG_TAIL_LINES = 15

# These ports are below Linux's ephemeral range (from 32768). A free port in that range may at any time become the local
# port of a connection.
PRIVATE_PORTS = range(20_000, 32_000)

# The guard's standard input is a pipe that this process holds. When this process ends, even by SIGKILL, the system
# closes the pipe, and the guard sends the stop signal. So no service outlives its user, and no pid file can become
# stale. (Linux's PR_SET_PDEATHSIG does not help: it fires when the starting *thread* ends, and services start in
# threads.)
GUARD = """
exec 3<&0
"$@" </dev/null 3<&- & service=$!
{ read -r _ <&3; kill -s "$STOP_SIGNAL" "$service"; } & watch=$!
exec 3<&-
wait "$service"; code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""


class ServiceError(UserError):
    """A private service could not be found, installed or started. The message contains the service and the reason."""


@contextmanager
def running(
    command: list[str | Path],
    *,
    log: Path,
    stop_signal: str = "TERM",
    account: str | None = None,
    environment: dict[str, str] | None = None,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends. Its output goes to `log`; its stdout goes to `stdout` if that is given.

    `account` is the user that runs it (only root can choose one). `environment` is added to this process's environment.
    If the command has not exited STOP_LIMIT_SECONDS after `stop_signal`, it is killed with its children.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own services
            ["/bin/sh", "-c", GUARD, "guard", *command],
            stdin=subprocess.PIPE,
            stdout=stdout or output,
            stderr=output,
            cwd="/",  # the account may have no access to our working folder
            env=os.environ | (environment or {}) | {"STOP_SIGNAL": stop_signal},
            start_new_session=True,  # Ctrl-C goes to this process only, which then stops its services
            user=account,
            group=group_of(account),
            extra_groups=None if account is None else [],
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout:
        process.stdout.close()


def group_of(account: str | None) -> int | None:
    return None if account is None else pwd.getpwnam(account).pw_gid


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], *, name: str, log: Path, limit_seconds: float
) -> None:
    """Poll `ready`. Raises ServiceError with the end of the log if the process exits or the time limit is over."""
    deadline = time.monotonic() + limit_seconds
    while not ready():
        if process.poll() is not None:
            raise ServiceError(f"{name} exited with code {process.returncode}\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServiceError(f"{name} was not ready within {limit_seconds:.0f} s\n{tail(log)}")
        time.sleep(POLL_SECONDS)


def first_line(process: subprocess.Popen[bytes], *, name: str, log: Path, limit_seconds: float) -> str:
    """Return the first line that the process prints to its pipe.

    Raises ServiceError with the end of the log if it exits without a line or prints none within the time limit.
    """
    assert process.stdout  # noqa: S101 - the caller has opened the pipe
    if not select.select([process.stdout], [], [], limit_seconds)[0]:
        raise ServiceError(f"{name} did not start within {limit_seconds:.0f} s\n{tail(log)}")
    if not (line := process.stdout.readline().decode().strip()):
        raise ServiceError(f"{name} did not start\n{tail(log)}")
    return line


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"end of {log}:", *(f"  {line}" for line in lines)])


def free_ports(count: int) -> list[int]:
    """Return `count` different ports of 127.0.0.1 on which nothing listens now."""
    return [port for port in random.sample(PRIVATE_PORTS, k=20 * count) if is_free(port)][:count]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
