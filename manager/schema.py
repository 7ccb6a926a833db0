"""The schema of the stored state: whether this version may read and write what is there. Pure.

Fields and kinds of objects that are added do not change the schema: what is absent reads as its default, and fields
that a version does not know are passed over (`pyswarm.wire`). It changes where an older version would do harm with
what a newer one has written; then the leader raises the number in the cluster's record, once all managers know it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm import __version__
from pyswarm.errors import Fatal
from pyswarm.objects import SCHEMA_VERSION, Cluster, Object


def refuse_newer(objects: Iterable[Object]) -> None:
    """Raises Fatal if the cluster's record is of a schema that this version does not know."""
    for obj in objects:
        if isinstance(obj, Cluster) and obj.schema_version > SCHEMA_VERSION:
            raise Fatal(
                f"the cluster's state has schema {obj.schema_version}, and pyswarm {__version__} knows schemas up to "
                f"{SCHEMA_VERSION}: install the version here that the other managers run"
            )
