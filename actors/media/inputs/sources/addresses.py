"""Which network addresses inputs may come from: public ones, unless the job allows private networks."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as IPv6-only networks reach them (RFC 6052): the last 32 bits are the address."""

_METADATA = frozenset({IPv4Address("168.63.129.16"), IPv4Address("100.100.100.200"), IPv4Address("192.0.0.192")})
"""Services of Azure, Alibaba Cloud and Oracle Cloud that answer their own machines; others are link-local."""


def is_public(address: str) -> bool:
    """Return whether an address belongs to the public internet.

    Private networks, loopback, link-local addresses (among them the metadata services of clouds), carrier-grade NAT,
    multicast and reserved addresses do not, nor do IPv6 addresses that stand for one of these.

    Args:
        address: IPv4 or IPv6, in numbers; perhaps with a zone, as in `fe80::1%eth0`.
    """
    return _is_public(ip_address(address.partition("%")[0]))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = _ipv4_within(address)
        if inner is not None:
            return _is_public(inner)
        if address.is_site_local or address.teredo is not None:
            return False
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not is_special and address not in _METADATA


def _ipv4_within(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to: mapped, through NAT64, or through 6to4."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
