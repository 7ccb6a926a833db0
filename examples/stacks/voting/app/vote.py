"""Takes votes: POST / with vote=cats or vote=dogs puts one into the queue."""

import socket

import redis
from flask import Flask, request

OPTIONS = ("cats", "dogs")
PAGE = """<!doctype html>
<title>Cats or dogs?</title>
<form method="post">{buttons}</form>
<p>{said}</p>
<footer>served by {host}</footer>
"""
app = Flask(__name__)
queue = redis.Redis(host="queue", socket_timeout=5)


@app.route("/", methods=["GET", "POST"])
def page():
    choice = request.form.get("vote")
    if choice is not None and choice not in OPTIONS:
        return f"vote for one of {', '.join(OPTIONS)}\n", 400
    if choice:
        queue.rpush("votes", choice)
    buttons = "".join(f'<button name="vote" value="{each}">{each}</button>' for each in OPTIONS)
    return PAGE.format(buttons=buttons, said=f"voted for {choice}" if choice else "", host=socket.gethostname())
