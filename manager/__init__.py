"""Manager nodes: the store over Raft, the reconcilers that plan, the APIs that serve."""
