"""The connections of one relay."""

import asyncio

from coupons.smtp.connection import Connection
from coupons.smtp.queue import Mail


class ConnectionSet:
    """A connection is first opening, then active, finally retiring. An active connection may be idle or stalled.

    A retiring connection accepts no more mails and finishes the ones that it has.
    """

    def __init__(self) -> None:
        self.opening: set[asyncio.Task[Connection]] = set()
        self.active: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the connection that became idle last is used first
        self._with_room: dict[Connection, None] = {}
        self._stalled: set[Connection] = set()
        self._retiring: set[Connection] = set()
        self._departed = asyncio.Event()

    def __contains__(self, connection: Connection) -> bool:
        return connection in self.active

    @property
    def all(self) -> list[Connection]:
        return [*self.active, *self._retiring]

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def answering(self) -> int:
        """The number of active connections that are not stalled."""
        return len(self.active) - len(self._stalled)

    @property
    def in_use(self) -> int:
        """The number of connections that are sending mails or opening."""
        return self.answering + len(self.opening) - len(self._idle)

    @property
    def is_rest_stalled(self) -> bool:
        """Whether all remaining connections are stalled."""
        return not (self.answering or self.opening) and all(each.is_stalled for each in self._retiring)

    @property
    def stalled_mails(self) -> list[Mail]:
        """The mails on stalled connections, active or retiring."""
        stalled = [connection for connection in (*self._stalled, *self._retiring) if connection.is_stalled]
        return [mail for connection in stalled for mail in connection.session.in_flight]

    def add_opening(self, task: asyncio.Task[Connection]) -> None:
        self.opening.add(task)

    def remove_opening(self, task: asyncio.Task[Connection]) -> None:
        self.opening.discard(task)
        self._departed.set()

    def add_idle(self, connection: Connection) -> None:
        self.active.add(connection)
        self._idle[connection] = None

    def take_idle(self) -> Connection:
        return self._idle.popitem()[0]

    def add_room(self, connection: Connection) -> None:
        """Remember that the connection can begin a mail before it gets the final reply to the one before."""
        if connection in self.active:
            self._with_room[connection] = None

    def take_room(self) -> Connection | None:
        """Return the connection that has had room for the longest time; None if there is none."""
        while self._with_room:
            connection = next(iter(self._with_room))
            del self._with_room[connection]
            if connection.session.can_accept and not (connection.session.is_quiet or connection.is_stalled):
                return connection
        return None

    def add_stalled(self, connection: Connection) -> None:
        self._stalled.add(connection)

    def remove_stalled(self, connection: Connection) -> None:
        self._stalled.discard(connection)

    def retire(self, connection: Connection) -> None:
        self._forget(connection)
        self._retiring.add(connection)
        connection.retire()

    def remove(self, connection: Connection) -> None:
        self._forget(connection)
        self._retiring.discard(connection)
        self._departed.set()

    async def wait_removed(self, connection: Connection) -> None:
        while connection in self.active or connection in self._retiring:
            self._departed.clear()
            await self._departed.wait()

    async def wait_empty(self) -> None:
        while self.opening or self.active or self._retiring:
            self._departed.clear()
            await self._departed.wait()

    def _forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._with_room.pop(connection, None)
        self.active.discard(connection)
        self._stalled.discard(connection)
