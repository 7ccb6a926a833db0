"""Addresses, virtual IPs, published ports, subnets and network identifiers: who has what, and who is next."""

from manager.allocator.allocator import Allocator
from manager.allocator.subnets import check_network

__all__ = ["Allocator", "check_network"]
