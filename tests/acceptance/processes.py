"""Run `coupons` as a program: commands and workers."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from sandbox.services import Services
from tests.acceptance import forks
from tests.acceptance.forks import Forked
from tests.factories import SENDER
from tests.leaks import leaks, without_arguments
from tests.waiting import LIMIT_SECONDS, eventually

COUPONS = Path(sys.executable).with_name("coupons")
DONE, FAILED, WRONG_USAGE, REJECTED_LINES, INTERRUPTED, NOT_ALL_MAILED, STILL_RUNNING = range(7)
"""Exit codes of `coupons`."""

COMMAND_LIMIT_SECONDS = 60

SETTINGS = {"COUPONS_DEFAULT_FROM": SENDER, "TERM": "xterm-256color"}
MONITORING = ("ready", "doctor")
"""Commands whose output goes to a monitoring system."""
NOT_INHERITED = ("COUPONS_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@dataclass(frozen=True, slots=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Worker:
    """A running `coupons worker`."""

    def __init__(self, process: "subprocess.Popen[bytes] | Forked", log: Path) -> None:
        self._process = process
        self._log = log
        self._ended_as = DONE
        self.may_log_errors = False  # an older version does when the database rejects its statements

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def says(self, words: str) -> None:
        """Wait until the worker's log contains these words."""
        eventually(lambda: words in self.log or self._process.poll() is not None, f"{words!r} in a worker's log")
        assert words in self.log, f"the worker exited with code {self._process.returncode}"

    def kill(self) -> None:
        """Kill the worker, as if its machine lost power."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Send SIGTERM to the worker, and return its exit code."""
        self._process.terminate()
        return self._process.wait(LIMIT_SECONDS)

    def force(self) -> int:
        """Send SIGTERM twice, the second time while the worker awaits its in-flight mails; return the exit code."""
        self._process.terminate()
        self.says("shutting down")
        self._process.terminate()
        self._ended_as = self._process.wait(LIMIT_SECONDS)
        return self._ended_as

    def check(self) -> None:
        """Check that the worker exited cleanly or was killed, and that its log has no internal error and no secret."""
        if self._process.poll() is None:
            self.stop()
        assert self._process.returncode in {DONE, -signal.SIGKILL, self._ended_as}
        assert self.may_log_errors or "internal error" not in self.log
        assert "Traceback" not in self.log
        assert leaks(self.log) == []


class Programs:
    """Runs `coupons …` with the given services, in a folder of its own."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.services = services
        self.worker_logs: list[Path] = []
        self.printed: list[tuple[str, str]] = []
        """What commands printed on stderr, and what commands for monitoring printed, by the name of the command."""
        self.health_pages: list[str] = []
        self._folder = folder

    def file(self, name: str, content: str | bytes) -> Path:
        """Create a file in the folder."""
        path = self._folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def coupons(self, *arguments: object, code: int = DONE, **settings: object) -> Result:
        """Run `coupons …`, which must exit with this code. `settings` are COUPONS_… variables."""
        result = self.begin(*arguments, **settings)()
        assert result.code == code, f"coupons {' '.join(map(str, arguments))}: {result}"
        return result

    def together(self, *commands: Sequence[object]) -> None:
        """Run several commands at the same time; each must succeed."""
        for result in [end() for end in [self.begin(*command) for command in commands]]:
            assert result.code == DONE, result

    def begin(self, *arguments: object, **settings: object) -> Callable[[], Result]:
        """Start `coupons …`, and return a function that waits for the result."""
        process = self._start(arguments, _variables(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def end() -> Result:
            try:
                out, err = process.communicate(timeout=COMMAND_LIMIT_SECONDS)
            finally:
                process.kill()
            return self._note(arguments, Result(process.wait(), out.decode(), err.decode()))

        return end

    def interrupted(self, *arguments: object, when: Callable[[], object], what: str) -> Result:
        """Run `coupons …`, and press Ctrl-C as soon as the condition is true."""
        process = self._start(arguments, {}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        eventually(when, what)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=COMMAND_LIMIT_SECONDS)
        return self._note(arguments, Result(process.wait(), out.decode(), err.decode()))

    def on_terminal(self, *arguments: object, only_stderr: bool = False, typed: str = "", **environment: str) -> Result:
        """Run `coupons …` on a terminal, and type an answer to its prompts.

        The result's `err` is the output on the terminal. With `only_stderr`, stdout is not a terminal, and the result's
        `out` has its text.
        """
        ours, theirs = pty.openpty()
        stdout = self._folder / "stdout"
        with stdout.open("wb") as elsewhere:
            out = elsewhere.fileno() if only_stderr else theirs
            stdin = theirs if typed else subprocess.DEVNULL
            process = self._start(arguments, {"COLUMNS": "120"} | environment, stdin=stdin, stdout=out, stderr=theirs)
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        with suppress(OSError):  # Linux's way to report that the other end is closed
            while piece := os.read(ours, 65_536):
                shown += piece
        os.close(ours)
        return Result(process.wait(COMMAND_LIMIT_SECONDS), stdout.read_text(), shown.decode())

    @contextmanager
    def worker(self, *roles: str, ready: bool = True, **settings: object) -> Iterator[Worker]:
        """Run a worker process with these roles, by default all. With `ready`, wait until it consumes commands."""
        log = self._folder / f"worker-{len(self.worker_logs) + 1}.log"
        self.worker_logs.append(log)
        arguments = ["worker", *(part for role in roles for part in ("--role", role))]
        with log.open("wb") as output:
            process = self._start(arguments, _variables(settings), stdout=output.fileno(), stderr=output.fileno())
        worker = Worker(process, log)
        try:
            if ready:
                worker.says("consuming commands")
            yield worker
            if "health_port" in settings and not worker.is_dead:
                self.health_pages.append(health_page(settings["health_port"]))
            worker.check()
        finally:
            process.kill()
            process.wait()

    def _note(self, arguments: Sequence[object], result: Result) -> Result:
        """Keep what the command printed, to search it for codes and addresses that the operator did not type."""
        command = str(arguments[0])
        text = result.err + (result.out if command in MONITORING else "")
        self.printed.append((command, without_arguments(text, arguments)))
        return result

    def _start(
        self,
        arguments: Sequence[object],
        environment: dict[str, str],
        *,
        stdout: int,
        stderr: int,
        stdin: int = subprocess.DEVNULL,
    ) -> "subprocess.Popen[bytes] | Forked":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        environment = inherited | SETTINGS | self.services.environment() | environment
        texts = [*map(str, arguments)]
        if forks.can_be_forked(environment):
            return forks.start(texts, environment, self._folder, stdin=stdin, stdout=stdout, stderr=stderr)
        return subprocess.Popen(
            [COUPONS, *texts],
            env=environment,
            cwd=self._folder,  # the folder has no .env
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )


def health_page(port: object) -> str:
    """Return the body of a worker's `/readyz`, or "" if it gives no answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=LIMIT_SECONDS) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def _variables(settings: dict[str, object]) -> dict[str, str]:
    return {f"COUPONS_{name.upper()}": str(value) for name, value in settings.items()}
