"""The original of 2010, measured under Python 2.7; run by compare.py.

    python2.7 original.py serve SOURCE PORT
    python2.7 original.py measure SOURCE PORT ITEMS SECONDS
"""

import json
import os
import random
import sys
import time


def rate(work, seconds):
    began = time.time()
    done = 0
    for _ in work:
        done += 1
        if not done & 63 and time.time() > began + seconds:
            break
    return done / (time.time() - began)


def measure(port, count, seconds):
    from mivrhash.mivrhashclient import MivRHash

    draw = random.Random(20240229)
    keys = ["%016x" % draw.getrandbits(64) for _ in range(count)]
    pool = os.urandom(1 << 20)
    deadline = time.time() + 20
    while True:
        try:
            table = MivRHash("localhost", port)
            break
        except Exception:
            if time.time() > deadline:
                raise

    def inserts():
        for key in keys:
            at = draw.randrange(len(pool) - 100)
            table[key] = pool[at : at + 100]
            yield
        table.do_write_back()
        len(table)

    def gets():
        for _ in range(count):
            table[keys[draw.randrange(have)]]
            yield

    figures = {"inserts": rate(inserts(), seconds)}
    have = len(table)
    have = min(have, count)
    figures["gets"] = rate(gets(), seconds)
    figures["iteration"] = rate(table.iteritems(), seconds)
    print(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    if sys.argv[1] == "serve":
        from mivrhash.mivrhashservice import RsHashService

        sys.stdout = open(os.devnull, "w")
        RsHashService().start_service(int(sys.argv[3]))
    else:
        measure(int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
