"""`pyswarm secret`: see `pyswarm.cli.payload`."""

from __future__ import annotations

from pyswarm import engine
from pyswarm.cli import payload, pretty
from pyswarm.objects import Secret

secret = payload.group(payload.Noun("secret", Secret, engine.secret, pretty.secret))
