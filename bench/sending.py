"""Benchmarks of sending. Other programs are measured alternately on the same machine, for comparison."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from bench.engine import engine
from bench.latency import delayed
from bench.naive import naive
from bench.post_office import PostOffice
from bench.profile import profile
from bench.rig import Rig, compare, open_rig, resident_mib, smtp_sink, smtp_source
from sandbox.services import Services
from tests.postfix import Postfix, private_postfix
from tests.waiting import until

ROUNDS = 3
ENGINE_MAILS = 50_000
RECIPIENTS = 50_000
MILLION = 1_000_000
NAIVE_MAILS = 3_000
POST_OFFICE_MAILS = 6_000
LATENCY_MAILS = 3_000
LATENCY_SECONDS = 0.02
RELAYED = 6_000
RELAY_ROUNDS = 6
DRAIN_LIMIT_SECONDS = 300

# Process name → name of its figure.
PROGRAMS = {"coupons": "worker", "postgres": "postgres", "smtp-sink": "smtp_sink", "beam.smp": "rabbitmq"}

Figures = dict[str, float]


async def measure(services: Services, folder: Path, parts: list[str]) -> AsyncIterator[Figures]:
    """Yield the figures of each part in the order of PARTS."""
    async with open_rig(services, folder) as shop:
        with smtp_sink(folder / "smtp-sink.log") as sink:
            for name, part in PARTS.items():
                if name in parts:
                    print(f"measuring: {name}", file=sys.stderr)
                    yield await part(shop, sink)


async def engine_alone(_: Rig, sink: str) -> Figures:
    source, ours, ratio = await compare(
        ROUNDS, lambda: smtp_source(sink, ENGINE_MAILS), lambda: engine(f"smtp://{sink}", ENGINE_MAILS)
    )
    return {"smtp_source_mails_per_s": source, "engine_mails_per_s": ours, "engine_vs_smtp_source": ratio}


async def end_to_end(shop: Rig, sink: str) -> Figures:
    """Measure whole sendouts, and the cores that each program uses: 1.0 is one core all the time."""
    with shop.workers(f"smtp://{sink}"):
        await shop.end_to_end(RECIPIENTS // 10)  # warm-up: the first sendout has cold caches and compiles the message
        _, ours, ratio = await compare(
            ROUNDS, lambda: smtp_source(sink, RECIPIENTS), lambda: shop.end_to_end(RECIPIENTS)
        )
    cores = {f"end_to_end_cores_{figure}": shop.cores.get(program, 0.0) for program, figure in PROGRAMS.items()}
    return {"end_to_end_smtp_sink_mails_per_s": ours, "end_to_end_vs_smtp_source": ratio} | cores


async def naive_pipeline(shop: Rig, sink: str) -> Figures:
    with shop.workers(f"smtp://{sink}"):
        baseline, _, ratio = await compare(
            ROUNDS, lambda: naive(shop.services, sink, NAIVE_MAILS), lambda: shop.end_to_end(RECIPIENTS)
        )
    return {"naive_mails_per_s": baseline, "end_to_end_vs_naive": ratio}


async def post_office(shop: Rig, sink: str) -> Figures:
    office = PostOffice(shop.folder / "post-office", shop.services, sink)
    await office.install()
    with shop.workers(f"smtp://{sink}"):
        baseline, _, ratio = await compare(
            ROUNDS, lambda: office.mails_per_s(POST_OFFICE_MAILS), lambda: shop.end_to_end(RECIPIENTS)
        )
    return {"post_office_mails_per_s": baseline, "end_to_end_vs_post_office": ratio}


async def postfix_relay(shop: Rig, sink: str) -> Figures:
    """Measure sending to a Postfix that queues each mail on disk and relays it to the sink."""
    with private_postfix(sink, say=lambda line: print(line, file=sys.stderr)) as postfix, shop.workers(postfix.url):
        source, ours, ratio = await compare(
            RELAY_ROUNDS,
            lambda: then_drain(postfix, smtp_source(f"127.0.0.1:{postfix.port}", RELAYED)),
            lambda: then_drain(postfix, shop.end_to_end(RELAYED)),
        )
    return {
        "postfix_smtp_source_mails_per_s": source,
        "postfix_relay_mails_per_s": ours,
        "postfix_relay_vs_smtp_source": ratio,
    }


async def then_drain(postfix: Postfix, measurement: Awaitable[float]) -> float:
    """Wait for a measurement and then for an empty queue of the relay, where the next one starts; return the figure."""
    figure = await measurement
    await until(lambda: not postfix.queued(), "an empty queue", within=DRAIN_LIMIT_SECONDS, seen=postfix.queued)
    return figure


async def latency(shop: Rig, sink: str) -> Figures:
    with delayed(sink, seconds=LATENCY_SECONDS, log=shop.folder / "latency.log") as far_sink:
        return {"latency_20ms_mails_per_s": await engine(f"smtp://{far_sink}", LATENCY_MAILS)}


async def two_workers(shop: Rig, sink: str) -> Figures:
    async def sendout(workers: int) -> float:
        with shop.workers(f"smtp://{sink}", count=workers):
            return await shop.end_to_end(RECIPIENTS)

    one, two, ratio = await compare(ROUNDS, lambda: sendout(1), lambda: sendout(2))
    return {"one_worker_mails_per_s": one, "two_workers_mails_per_s": two, "two_workers_vs_one": ratio}


async def a_million(shop: Rig, sink: str) -> Figures:
    """Measure a sendout to a million recipients between two of the usual size. The memory is the worker's peak."""
    with shop.workers(f"smtp://{sink}") as [worker]:
        before = await shop.end_to_end(RECIPIENTS)
        million = await shop.end_to_end(MILLION)
        after = await shop.end_to_end(RECIPIENTS)
        memory = resident_mib(worker)
    return {
        "million_mails_per_s": million,
        "flat_1m_vs_50k": million / ((before + after) / 2),
        "worker_rss_mib": memory,
    }


PARTS: dict[str, Callable[[Rig, str], Awaitable[Figures]]] = {
    "engine": engine_alone,
    "latency": latency,
    "end-to-end": end_to_end,
    "naive": naive_pipeline,
    "post-office": post_office,
    "postfix": postfix_relay,
    "two-workers": two_workers,
    "profile": profile,
    "million": a_million,
}
