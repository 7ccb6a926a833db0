"""Faults of every kind, by seed, on a real cluster, and a proof afterwards that nothing was lost or left."""
