"""One connection to the votes."""

import contextlib
import os
from pathlib import Path

import psycopg2


def connect():
    password = Path(os.environ["DB_PASSWORD_FILE"]).read_text().strip()
    return contextlib.closing(
        psycopg2.connect(host="db", user="postgres", dbname="votes", password=password, connect_timeout=5)
    )
