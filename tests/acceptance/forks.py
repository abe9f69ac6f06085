"""Run `coupons …` in a separate process without starting a new interpreter.

Importing the modules takes 0.3 to 0.8 s in each command and worker. One process per test session imports them once and
forks. Each child runs `coupons` from its first line, with its own arguments, environment, folder and files, and exits
as a program does. The children share only the hash seed. With COUPONS_TEST_FORKS=0 the installed program is started
instead.
"""

import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TextIO, cast

from coupons import failpoints

ROOT = Path(__file__).parents[2]
PRELOADED = ("producers.cli", "producers.cli.progress", "producers.doctor", "producers.web.server", "workers.main")
FORKS = os.environ.get("COUPONS_TEST_FORKS") != "0"
ENVIRONMENT = {**os.environ}
"""The environment of the forking process. Tests change only the environment of the children."""
READ_AT_START = ("LD_", "PYTHON", "LC_", "LANG", "TZ")
"""Variables that the interpreter or the first module reads, so that a fork cannot change them."""
LARGEST_REQUEST = 1 << 20
STANDARD_FILES = (0, 1, 2)


def can_be_forked(environment: dict[str, str]) -> bool:
    return FORKS and _read_at_start(environment) == _read_at_start(ENVIRONMENT)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


class Forked:
    """A forked child process with the part of subprocess.Popen that the tests use."""

    def __init__(self, status: int, outputs: Sequence[int]) -> None:
        """The child's pid and later its exit code arrive on `status`; `outputs` are the read ends of its pipes."""
        self._status = status
        self._outputs = outputs
        self.returncode: int | None = None
        self.pid = int(self._read_status())

    def poll(self) -> int | None:
        return self._ends_within(0)

    def wait(self, timeout: float | None = None) -> int:
        if (code := self._ends_within(timeout)) is None:
            raise subprocess.TimeoutExpired("coupons", timeout or 0)
        return code

    def communicate(self, timeout: float) -> tuple[bytes, ...]:
        """Collect the output of the child's pipes until the child exits, and return it."""
        deadline = time.monotonic() + timeout
        pieces: dict[int, list[bytes]] = {output: [] for output in self._outputs}
        unread = {*self._outputs}
        while unread:
            ready, _, _ = select.select([*unread], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired("coupons", timeout)
            for output in ready:
                piece = os.read(output, 65_536)
                pieces[output].append(piece)
                if not piece:
                    unread.remove(output)
                    os.close(output)
        self._outputs = ()
        self.wait(max(0.0, deadline - time.monotonic()))
        return tuple(b"".join(each) for each in pieces.values())

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # the child has just exited
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ends_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._read_status())
            os.close(self._status)
        return self.returncode

    def _read_status(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self._status, 1)
            assert piece, "the forking process has exited"
            line += piece
        return line.decode()


def start(
    arguments: Sequence[str], environment: dict[str, str], folder: Path, *, stdin: int, stdout: int, stderr: int
) -> Forked:
    """Start a child, like subprocess.Popen: the files are descriptors, PIPE or DEVNULL."""
    status, reporting = os.pipe()
    pipes = [os.pipe() if file == subprocess.PIPE else None for file in (stdout, stderr)]
    nothing = os.open(os.devnull, os.O_RDWR)
    files = [
        nothing if stdin == subprocess.DEVNULL else stdin,
        *(pipe[1] if pipe else file for pipe, file in zip(pipes, (stdout, stderr), strict=True)),
    ]
    request = json.dumps([arguments, environment, str(folder)]).encode()
    assert len(request) < LARGEST_REQUEST
    socket.send_fds(_forking(), [request], [reporting, *files])
    for number in [reporting, nothing, *(pipe[1] for pipe in pipes if pipe)]:
        os.close(number)
    return Forked(status, [pipe[0] for pipe in pipes if pipe])


@cache
def _forking() -> socket.socket:
    """Return the connection to the forking process, which starts at first use and exits when the socket is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_REQUEST)
    with theirs:
        command = [sys.executable, "-m", __spec__.name, str(theirs.fileno())]
        subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, pass_fds=[theirs.fileno()])
    return ours


# --- the forking process ---


def _serve(requests: socket.socket) -> None:
    """Fork for each request and report each exit. The function returns only in a child."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fileobj)
                    _report_exit(*key.data)
                    os.close(key.fd)
                    continue
                message, files, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 4)
                if not message:
                    raise SystemExit
                if (pid := os.fork()) == 0:
                    arguments, environment, folder = json.loads(message)
                    _close_others([files[0], *(each for key in selector.get_map().values() for each in _numbers(key))])
                    _become(arguments, environment, folder, files[1:])
                    return
                os.write(files[0], b"%d\n" % pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, files[0]))
                for file in files[1:]:
                    os.close(file)


def _report_exit(pid: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # the test no longer waits for the child
        os.write(status, b"%d\n" % code)
    os.close(status)


def _numbers(key: selectors.SelectorKey) -> list[int]:
    """Return the descriptors that this process keeps for one child; none for the socket of the requests."""
    return [key.fd, key.data[1]] if key.data else []


def _close_others(numbers: list[int]) -> None:
    for number in numbers:
        os.close(number)


def _become(arguments: list[str], environment: dict[str, str], folder: str, files: list[int]) -> None:
    """Turn this child into the requested program."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["coupons", *arguments]
    for ours, standard in zip(files, STANDARD_FILES, strict=True):
        os.dup2(ours, standard)
        os.close(ours)
    sys.stdin = _text(sys.stdin, "r")
    sys.stdout = _text(sys.stdout, "w", 1 if os.isatty(1) else -1)
    sys.stderr = _text(sys.stderr, "w", 1)
    failpoints.arm(environment.get(failpoints.VARIABLE, ""))


def _text(before: TextIO, mode: str, buffering: int = -1) -> TextIO:
    """Reopen a standard file, because it may now be a terminal or no longer be one."""
    return cast(
        "TextIO", open(before.fileno(), mode, buffering, encoding=before.encoding, errors=before.errors, closefd=False)
    )


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to the tests and to this process
    with socket.socket(fileno=int(sys.argv[1])) as _requests:
        _serve(_requests)
    signal.signal(signal.SIGINT, ctrl_c)
    importlib.import_module("producers.cli").main(prog_name="coupons")
