"""Placement: filters with reasons, one ranking for scale-up, scale-down, drain and rebalance."""
