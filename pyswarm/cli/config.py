"""`pyswarm config`: see `pyswarm.cli.payload`."""

from __future__ import annotations

from pyswarm import engine
from pyswarm.cli import payload, pretty
from pyswarm.objects import Config

config = payload.group(payload.Noun("config", Config, engine.config, pretty.config))
