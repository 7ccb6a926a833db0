"""Addresses, virtual IPs, published ports, subnets and network identifiers: who has what, and who is next."""

from manager.allocator.allocator import Allocator
from manager.allocator.ports import check_ports
from manager.allocator.subnets import check_network

__all__ = ["Allocator", "check_network", "check_ports"]
