"""The node end of the overlay networks: plan, netlink, nftables, DNS."""
