"""A baseline: django-post-office, a mail queue for Django, with the same PostgreSQL server and the same sink.

Only its sending is measured: its mails are rendered and queued before, and the start time of its programs is
subtracted.
"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from bench.rig import SENDER, compiled_message, run_program
from coupons.templates.rendering import Coupon
from sandbox.services import Services
from tests.clusters import with_database

PACKAGES = ("django==5.2.*", "django-post-office==3.12.*", "psycopg[binary]==3.3.*")
PROCESSES = 2
QUEUED, MEDIUM = 2, 2  # its numbers for this state and this priority
COLUMNS = (
    "from_email", "to", "cc", "bcc", "subject", "message", "html_message", "status", "priority",
    "created", "last_updated", "backend_alias",
)  # fmt: skip


class PostOffice:
    """django-post-office in its own virtual environment and database."""

    def __init__(self, home: Path, services: Services, address: str) -> None:
        self._python = home / "bin" / "python"
        self._home = home
        self._server_url = services.database_url
        self._database_url = with_database(services.database_url, "post_office")
        self._environment = {
            "PYTHONPATH": str(Path.cwd()),
            "DJANGO_SETTINGS_MODULE": "bench.post_office_settings",
            "POST_OFFICE_DATABASE_URL": self._database_url,
            "POST_OFFICE_SMTP": address,
        }

    async def install(self) -> None:
        """Create its virtual environment with its packages, and its database with its tables."""
        if not self._python.exists():
            await run_program(sys.executable, "-m", "venv", self._home)
        await run_program(self._python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES)
        server = await asyncpg.connect(self._server_url)
        if not await server.fetchval("SELECT 1 FROM pg_database WHERE datname = 'post_office'"):
            await server.execute("CREATE DATABASE post_office")
        await server.close()
        await self._django("migrate")

    async def mails_per_s(self, mails: int) -> float:
        """Mails/s from a full queue to an empty one, minus the time of the same command with an empty queue."""
        start = await self._seconds()
        connection = await asyncpg.connect(self._database_url)
        await connection.execute("TRUNCATE post_office_email CASCADE")
        await connection.copy_records_to_table("post_office_email", records=queue(mails), columns=COLUMNS)
        await connection.execute("VACUUM ANALYZE post_office_email")
        seconds = await self._seconds() - start
        sent = await connection.fetchval("SELECT count(*) FROM post_office_email WHERE status = 0")
        await connection.close()
        if sent != mails:
            raise RuntimeError(f"django-post-office sent {sent} of {mails} mails")
        return mails / seconds

    async def _seconds(self) -> float:
        begun = time.perf_counter()
        await self._django("send_queued_mail", "--processes", str(PROCESSES), "--lockfile", str(self._home / "lock"))
        return time.perf_counter() - begun

    async def _django(self, *arguments: str) -> None:
        await run_program(self._python, "-m", "django", *arguments, environment=self._environment)


def queue(mails: int) -> list[tuple[object, ...]]:
    template, now = compiled_message().template, datetime.now(UTC)
    rows: list[tuple[object, ...]] = []
    for number in range(mails):
        coupon = Coupon(f"OFFICE-{number:09}", is_code=True)
        parts = template.render({"first_name": f"Zoë {number}"}, {"bench": coupon})
        to = f"c{number}@example.org"
        mail = (SENDER, to, "", "", parts.subject, parts.text, parts.html, QUEUED, MEDIUM, now, now, "")
        rows.append(mail)
    return rows
