"""Moves votes from the queue into the database, each exactly as long as both are there."""

import signal
import sys
import time

import psycopg2
import redis
from database import connect


def main() -> None:
    queue = redis.Redis(host="queue", socket_timeout=30)
    with connect() as database, database.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS votes (id serial PRIMARY KEY, choice text NOT NULL)")
        database.commit()
        print("counting")
        while True:
            item = queue.blpop(["votes"], timeout=10)
            if item is not None:
                cursor.execute("INSERT INTO votes (choice) VALUES (%s)", (item[1].decode(),))
                database.commit()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            main()
        except (OSError, psycopg2.Error, redis.RedisError) as error:
            print(f"trying again in a second: {error}")
            time.sleep(1)
