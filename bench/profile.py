"""Measures how a worker spends its time while it sends. py-spy samples its stack from another process."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench.rig import Rig

PY_SPY = Path(sys.executable).with_name("py-spy")
RECIPIENTS = 100_000
SECONDS = 8
SAMPLES_PER_SECOND = 500

# A sample belongs to the area of the innermost call that belongs to any area.
AREAS = {
    "mail": ("coupons/mail/", "coupons/templates/rendering.py", "coupons/addresses.py", "workers/delivery/renderer.py"),
    "smtp_write": ("_write (coupons/smtp/connection.py",),
    "smtp_session": ("coupons/smtp/",),
    "database": ("asyncpg/", "coupons/store/", "coupons/database.py"),
    "delivery": ("workers/",),
    "event_loop": ("asyncio/runners.py", "uvloop/"),
}


async def profile(shop: Rig, sink: str) -> dict[str, float]:
    """The share of each area in the time that the worker's main thread spent."""
    stacks = shop.folder / "stacks.txt"
    with shop.workers(f"smtp://{sink}") as (pid,):
        await shop.end_to_end(RECIPIENTS // 10)
        sampling = await asyncio.create_subprocess_exec(
            PY_SPY, "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(SAMPLES_PER_SECOND),
            "--format", "raw", "--output", stacks, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        await shop.end_to_end(RECIPIENTS)
        if await sampling.wait() != 0:
            raise RuntimeError("py-spy failed to sample the worker")
    return {f"profile_{area}": share for area, share in shares(stacks.read_text(encoding="utf-8")).items()}


def shares(stacks: str) -> dict[str, float]:
    """The share of each area in the samples, without threads that only wait for work.

    A line of `stacks` has the form `outer;…;inner count`.
    """
    samples: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        if "concurrent/futures/thread.py" not in stack:
            samples[area_of(stack.split(";"))] += int(count)
    total = samples.total()
    return {area: samples[area] / total for area in (*AREAS, "other")}


def area_of(frames: list[str]) -> str:
    for frame in reversed(frames):
        for area, marks in AREAS.items():
            if any(mark in frame for mark in marks):
                return area
    return "other"
