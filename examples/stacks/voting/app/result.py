"""Shows the result as JSON."""

from database import connect
from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def result():
    with connect() as database, database.cursor() as cursor:
        cursor.execute("SELECT choice, count(*) FROM votes GROUP BY choice ORDER BY choice")
        return jsonify(dict(cursor.fetchall()))
