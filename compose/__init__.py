"""Compose files to specs: a loader in passes, each pure but the reading of files."""
