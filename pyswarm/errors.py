"""The error family: one root, a subclass for each thing the caller can do about it.

The message says what is wrong, where, and the way out. gRPC codes, HTTP codes and exit codes are mapped
from the class in one place each (`pyswarm.rpc`, `pyswarm.engine`, `pyswarm.cli.main`).
"""

from __future__ import annotations

from collections.abc import Mapping


class PyswarmError(Exception):
    """Root of every error that pyswarm raises on purpose. `str(error)` is the text for a person."""


class Invalid(PyswarmError):
    """The request or file is wrong; the same request will fail again. Correct it."""


class NotFound(PyswarmError):
    """The named object does not exist."""


class Conflict(PyswarmError):
    """The object exists already, is in use, or was changed since it was read. Read again, then decide."""


class Locked(Conflict):
    """The manager's keys are locked (autolock): it does nothing until it is unlocked."""

    def __init__(
        self,
        text: str = "the cluster is locked; unlock it with `pyswarm unlock` on this manager, with the key that "
        "`pyswarm unlock-key` shows on one that works",
    ) -> None:
        super().__init__(text)


class Unavailable(PyswarmError):
    """A part is not reachable or has no leader right now. The same request may succeed later."""


class Untrusted(Unavailable):
    """Who answers there shows a certificate that no root which is trusted here has signed."""


class PermissionDenied(PyswarmError):
    """The caller's identity does not allow this request."""


class Fatal(PyswarmError):
    """This process cannot go on: corrupt state, missing program, unusable machine."""


class MissingProgram(Fatal):
    """A program that pyswarm drives is not installed. The message names the package to install."""

    def __init__(self, program: str, package: str, why: str = "") -> None:
        self.program = program
        self.package = package
        reason = f" ({why})" if why else ""
        super().__init__(f"{program} is not installed{reason}: install it with `apt-get install {package}`")


_ON_THE_WIRE: Mapping[str, type[PyswarmError]] = {
    cls.__name__: cls for cls in (Invalid, NotFound, Conflict, Locked, Unavailable, PermissionDenied, Fatal)
} | {"MissingProgram": Fatal}


def named(name: str, text: str) -> PyswarmError:
    """An error of the class called `name`, as another process sent it; of the root class if there is none."""
    return _ON_THE_WIRE.get(name, PyswarmError)(text)
