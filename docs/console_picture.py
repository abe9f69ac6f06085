"""Writes docs/outbox.png, the console's Outbox with three sendouts: `make picture`. It needs Chromium."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.process import free_ports, running
from sandbox.services import Services, private_services

PICTURE = Path(__file__).with_name("outbox.png")
DEMO = Path(__file__).parents[1] / "demo"
COUPONS = Path(sys.executable).with_name("coupons")
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1_000, 800
"""In CSS pixels: the three sendouts without the footer."""
PIXELS = 1.5
"""Image pixels per CSS pixel, for sharp text on most screens."""
MAILS = 300
"""How many of its 1,000 mails the sending sendout has sent when the picture is taken."""


@contextmanager
def filled_console(folder: Path) -> Iterator[str]:
    """Yield the URL of a console with a finished, a sending and an interrupted sendout."""
    with private_services(folder, durable=False) as services:
        coupons = Coupons(services, folder)
        coupons("migrate")
        with coupons.worker():
            coupons.add_lists_and_groups()
            coupons.send(
                "birthday-greetings", "newsletter", "--wait", may_fail=True
            )  # some mails are refused or uncertain
            coupons.send("vip-thank-you", "customers", "--per-hour", "72000")
            coupons.send("spring-voucher", "customers", "--wait", may_fail=True)  # the sendout is interrupted
            while coupons.mails_sent("vip-thank-you") < MAILS:
                time.sleep(0.2)
            with coupons.console() as url:
                yield url


class Coupons:
    """Runs the command line on the given services."""

    def __init__(self, services: Services, folder: Path) -> None:
        self._environment = os.environ | services.environment()
        self._folder = folder

    def __call__(self, *arguments: str, may_fail: bool = False) -> str:
        command: list[str | Path] = [COUPONS, *arguments]
        return subprocess.run(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,  # a terminal would be asked
            stdout=subprocess.PIPE,
            text=True,
            check=not may_fail,
        ).stdout

    def add_lists_and_groups(self) -> None:
        customers = (DEMO / "customers.csv").read_text(encoding="utf-8").splitlines()
        for name, description, codes in (
            ("spring-10", "10% off everything", (DEMO / "spring-codes.txt").read_text().split()),
            ("vip-25", "25 % off for regular customers", [f"VIP-{number:06}" for number in range(5_002)]),
            ("birthday-5", "5 € for a birthday", [f"BIRTHDAY-{number:06}" for number in range(500)]),
        ):
            self("list", "create", name, "--description", description)
            self("import", self._file("codes.txt", codes), "--list", name, "--wait")
        self("group", "import", self._file("customers.csv", customers), "--group", "customers", "--wait", may_fail=True)
        odd = ["refuse.a@example.org;A", "refuse.b@example.org;B", "drop.c@example.org;C"]  # the mail sink knows these
        newsletter = ["email;first_name", *odd, *(f"reader{number}@example.org;Reader" for number in range(247))]
        self("group", "import", self._file("newsletter.csv", newsletter), "--group", "newsletter", "--wait")
        self.save_message("birthday-greetings", "birthday-5")
        self.save_message("vip-thank-you", "vip-25")
        self.save_message("spring-voucher", "spring-10", "vip-25")

    def save_message(self, name: str, *lists: str) -> None:
        lines = ["Hello {{ first_name }},", *(f'{{{{ coupon("{each}") }}}}' for each in lists)]
        text, sender = self._file("message.txt", lines), "Garden Shop <shop@example.org>"
        self("message", "save", name, "--subject", "Your voucher", "--text", text, "--from", sender)

    def send(self, message: str, group: str, *options: str, may_fail: bool = False) -> None:
        self("send", "--message", message, "--group", group, *options, may_fail=may_fail)

    def mails_sent(self, message: str) -> int:
        """Number of mails that the sendouts of this message have sent."""
        return sum(each["sent"] for each in json.loads(self("outbox", "--json")) if each["message"] == message)

    @contextmanager
    def worker(self) -> Iterator[None]:
        (port,) = free_ports(1)
        with self._running("worker", COUPONS_HEALTH_PORT=port):
            self("ready", "--url", f"http://127.0.0.1:{port}", "--wait", "30")
            yield

    @contextmanager
    def console(self) -> Iterator[str]:
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        with self._running("web", COUPONS_WEB_PORT=port):
            self("ready", "--url", url, "--wait", "30")
            yield url

    @contextmanager
    def _running(self, command: str, **settings: object) -> Iterator[None]:
        environment = self._environment | {name: str(value) for name, value in settings.items()}
        with running([COUPONS, command], log=self._folder / f"{command}.log", environment=environment):
            yield

    def _file(self, name: str, lines: list[str]) -> str:
        path = self._folder / name
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return str(path)


def take_picture(url: str, path: Path, *, width: int = WIDTH, height: int = HEIGHT) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=500"]
    size = [f"--window-size={width},{height}", f"--force-device-scale-factor={PIXELS}", f"--screenshot={path}"]
    subprocess.run([CHROMIUM, *options, *size, url], stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, filled_console(Path(folder)) as url:
        take_picture(url, PICTURE)
