"""What a daemon may have open."""

from __future__ import annotations

import resource


def raise_file_limit() -> None:
    """Use as many descriptors as the machine allows: a container costs an agent a dozen, and a caller of a manager's
    one, whoever it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
