"""The shared floor of pyswarm: specs, objects, the wire codec, the client and the command line."""

__version__ = "0.1.0"
