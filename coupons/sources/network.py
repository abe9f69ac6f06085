"""Connections to hosts of https: sources, by default to public addresses only.

The host name is resolved once, and the connection uses exactly the checked address. If the name were resolved again, it
could point to this machine or its network (DNS rebinding).
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from coupons.sources.source import SourceError

CONNECT_SECONDS = 10

_GLOBAL_UNICAST = ip_network("2000::/3")  # everything that IANA has assigned in IPv6
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_NOT_PUBLIC = (  # networks in IANA's special-purpose registries that Python 3.11 regards as global
    ip_network("192.0.0.0/24"),
    ip_network("192.88.99.0/24"),
    ip_network("3fff::/20"),
)


async def connect(host: str, port: int, *, private: bool) -> socket.socket:
    """A non-blocking socket connected to the host.

    Raises:
        SourceError: an address of the host is not public, and `private` is not set.
        OSError: the host is unknown or does not answer.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not private and not all(is_public(ip_address(address[0])) for *_, address in found):
        raise SourceError(f"{host} is not a public host (COUPONS_IMPORT_PRIVATE_HOSTS allows private hosts)")
    failure = OSError("no address")
    for family, kind, protocol, _, address in found:
        try:
            return await _connect(family, kind, protocol, address)
        except OSError as error:
            failure = error
    raise failure


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is public and does not lead to a private one through a gateway."""
    if embedded := _embedded_ipv4(address):
        return is_public(embedded)
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def _embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address embedded in an IPv6 address: mapped, 6to4 or NAT64."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


async def _connect(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection
