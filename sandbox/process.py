"""Programs that live exactly as long as the block that started them."""

import os
import pwd
import random
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

# Below Linux's ephemeral range (from 32768): a port found free there may be some connection's own end a second later.
PRIVATE_PORTS = range(20_000, 32_000)

# The guard's standard input is a pipe that this process holds. However this process ends, even by SIGKILL, the system
# closes the pipe and the guard passes the stop signal on: no service outlives its user and no pid file can be stale.
# (Linux's PR_SET_PDEATHSIG is no help: it fires when the starting *thread* ends, and services start in threads.)
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
    """A private service could not be found, installed or started; the message says which and why."""


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
    """Runs `command` until the block ends; its output goes to `log`, standard output elsewhere if `stdout` is given.

    `account` is the user that runs it (only root can choose), `environment` is added to this process's own. What has
    not ended STOP_LIMIT_SECONDS after its `stop_signal` is killed with its children.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own services
            ["/bin/sh", "-c", GUARD, "guard", *command],
            stdin=subprocess.PIPE,
            stdout=stdout or output,
            stderr=output,
            cwd="/",  # an account may not reach the folder that root stands in
            env=os.environ | (environment or {}) | {"STOP_SIGNAL": stop_signal},
            start_new_session=True,  # Ctrl-C in the terminal is for this program, which then stops its services
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
    """Polls `ready`. Raises ServiceError with the log's last lines if the process ends or the limit passes first."""
    deadline = time.monotonic() + limit_seconds
    while not ready():
        if process.poll() is not None:
            raise ServiceError(f"{name} ended with exit code {process.returncode}\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServiceError(f"{name} did not answer within {limit_seconds:.0f} s\n{tail(log)}")
        time.sleep(POLL_SECONDS)


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines)])


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports of 127.0.0.1 that nobody listens on now."""
    return [port for port in random.sample(PRIVATE_PORTS, k=20 * count) if is_free(port)][:count]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
