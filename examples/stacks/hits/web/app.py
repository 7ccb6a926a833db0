"""Counts its visitors in Redis."""

import socket

import redis
from flask import Flask

app = Flask(__name__)
store = redis.Redis(host="redis", socket_timeout=5)


@app.get("/")
def visit() -> str:
    return f"visit number {store.incr('hits')}, counted by {socket.gethostname()}\n"
