"""Notes in PostgreSQL: GET and POST /notes."""

import os
from pathlib import Path

import psycopg2
from flask import Flask, jsonify, request

app = Flask(__name__)


def query(text: str, *values: str) -> list[tuple]:
    password = Path(os.environ["POSTGRES_PASSWORD_FILE"]).read_text().strip()
    connection = psycopg2.connect(
        host="db", user="postgres", dbname="notes", password=password, connect_timeout=5
    )
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall()
    finally:
        connection.close()


@app.get("/notes")
def notes():
    return jsonify([{"id": row[0], "text": row[1]} for row in query("SELECT id, text FROM notes ORDER BY id")])


@app.post("/notes")
def add():
    text = request.get_data(as_text=True)
    ((number,),) = query("INSERT INTO notes (text) VALUES (%s) RETURNING id", text)
    return jsonify({"id": number, "text": text}), 201
