"""Which network addresses are anybody's on the Internet, and which are this machine's or its neighbours'. Pure."""

from __future__ import annotations

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """True for an address of the Internet. False for loopback, private, link-local (cloud metadata), multicast and
    reserved ones, also in the dress of an IPv6 address; and for what is no address."""
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_near(host: str) -> bool:
    """True for a host whose very name says that it is this machine or a neighbour: an address that is not public, or
    `localhost`. What another name stands for is not asked."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return not is_public(host)
