"""Place an order, and add the event that says so, in one transaction.

    DATABASE_URL=postgres://... python3 place_order.py ORDER PRODUCT QTY

Exit codes: 0 placed, 1 refused or failed, 2 wrong use. Needs: pip install 'psycopg[binary]'
"""

import json
import os
import re
import sys

import psycopg

DATA_BYTES_MAX = 1 << 20
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")

ADD_EVENT = """
INSERT INTO settle_outbox (type, version, topic, aggregate_type, aggregate_id, producer, trace_parent, data)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
RETURNING event_id
"""


def add_event(cur, *, type, topic, aggregate_type, aggregate_id, producer, data, version=1, trace_parent=""):
    """Add an event. Call it last in the transaction: then the aggregate's row is locked, and the events
    of one aggregate get their numbers in the order of their commits."""
    for name in (type, topic, aggregate_type, producer):
        if not NAME.fullmatch(name):
            raise ValueError(f"name {name!r} is not 1 to 128 characters of A-Z a-z 0-9 . _ -")
    if not 1 <= len(aggregate_id.encode()) <= 256:
        raise ValueError(f"aggregate id of {len(aggregate_id.encode())} bytes, 1 to 256 allowed")
    body = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > DATA_BYTES_MAX:
        raise ValueError(f"data of {len(body)} bytes exceeds {DATA_BYTES_MAX}")
    cur.execute(ADD_EVENT, (type, version, topic, aggregate_type, aggregate_id, producer, trace_parent, body))
    return cur.fetchone()[0]


def place_order(conn, order_id, product, qty):
    with conn.transaction(), conn.cursor() as cur:
        cur.execute(
            "INSERT INTO orders (id, product, qty, state) VALUES (%s, %s, %s, 'PLACED')",
            (order_id, product, qty),
        )
        return add_event(
            cur,
            type="OrderPlaced",
            topic="orders",
            aggregate_type="order",
            aggregate_id=order_id,
            producer="order-python",
            data={"id": order_id, "product": product, "qty": qty},
            trace_parent=os.environ.get("TRACEPARENT", ""),
        )


def main(args):
    url = os.environ.get("DATABASE_URL")
    if len(args) != 3 or not args[2].isdecimal() or not url:
        print(__doc__, file=sys.stderr)
        return 2
    order_id, product, qty = args[0], args[1], int(args[2])
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            event_id = place_order(conn, order_id, product, qty)
    except (psycopg.Error, ValueError) as err:
        print(f"place order {order_id}: {err}", file=sys.stderr)
        return 1
    print(f"{order_id} {event_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
