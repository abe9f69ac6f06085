"""A TCP proxy that delays every byte, without limiting the throughput.

`python -m bench.latency PORT HOST:PORT SECONDS` forwards connections to PORT with this latency in each direction.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.process import free_ports, is_free, running, wait_until

CHUNK_BYTES = 65_536


@contextmanager
def delayed(target: str, *, seconds: float, log: Path) -> Iterator[str]:
    """Yields "host:port" of a proxy to `target`, in its own process."""
    [port] = free_ports(1)
    command: list[str | Path] = [sys.executable, "-m", "bench.latency", str(port), target, str(seconds)]
    with running(command, log=log, environment={"PYTHONPATH": str(Path.cwd())}) as process:
        wait_until(lambda: not is_free(port), process, name="The proxy", log=log, limit_seconds=10)
        yield f"127.0.0.1:{port}"


async def serve(port: int, host: str, target_port: int, seconds: float) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, target_port)
        await asyncio.gather(copy_late(reader, far_writer, seconds), copy_late(far_reader, writer, seconds))

    server = await asyncio.start_server(forward, "127.0.0.1", port)
    await server.serve_forever()


async def copy_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Write all data `seconds` after reading it, however much data is in transit."""
    loop = asyncio.get_running_loop()
    in_transit: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        data = b"-"
        while data:
            data = await reader.read(CHUNK_BYTES)
            in_transit.put_nowait((loop.time() + seconds, data))

    reading = asyncio.create_task(read())
    while True:
        due, data = await in_transit.get()
        await asyncio.sleep(due - loop.time())
        if not data:
            break
        writer.write(data)
    await reading
    writer.close()


if __name__ == "__main__":
    _, own_port, far, delay = sys.argv
    far_host, _, far_port = far.rpartition(":")
    asyncio.run(serve(int(own_port), far_host, int(far_port), float(delay)))
