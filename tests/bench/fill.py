"""Copies one stored job until there are so many: fill.py SQLITE COUNT. Prints the ids of some of them, one a line."""

import random
import sqlite3
import sys
import uuid

store, count = sys.argv[1], int(sys.argv[2])
database = sqlite3.connect(store, timeout=60)
database.row_factory = sqlite3.Row
job = dict(database.execute("SELECT * FROM jobs WHERE finished IS NOT NULL LIMIT 1").fetchone())
(known,) = database.execute("SELECT count(*) FROM jobs").fetchone()
columns = ", ".join(job)
places = ", ".join("?" for _ in job)


def copies():
    for _ in range(count - known):
        new = str(uuid.UUID(int=random.getrandbits(128), version=4))
        yield [v.replace(job["id"], new) if isinstance(v, str) else v for v in job.values()]


database.executemany(f"INSERT INTO jobs ({columns}) VALUES ({places})", copies())
database.commit()
# A store that has grown job by job has a short log, and not one of everything.
database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
for (name,) in database.execute("SELECT id FROM jobs ORDER BY random() LIMIT 2000"):
    print(name)
