// Place an order, and add the event that says so, in one transaction.
//
//     DATABASE_URL=postgres://... node place_order.mjs ORDER PRODUCT QTY
//
// Exit codes: 0 placed, 1 refused or failed, 2 wrong use. Needs: npm install pg
import pg from "pg";

const dataBytesMax = 1 << 20;
const name = /^[A-Za-z0-9._-]{1,128}$/;

const addEventSQL = `
INSERT INTO settle_outbox (type, version, topic, aggregate_type, aggregate_id, producer, trace_parent, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING event_id`;

// addEvent adds an event. Call it last in the transaction: then the aggregate's row is locked, and the
// events of one aggregate get their numbers in the order of their commits.
async function addEvent(client, e) {
  for (const n of [e.type, e.topic, e.aggregateType, e.producer]) {
    if (!name.test(n)) throw new Error(`name ${JSON.stringify(n)} is not 1 to 128 characters of A-Z a-z 0-9 . _ -`);
  }
  const idBytes = Buffer.byteLength(e.aggregateId);
  if (idBytes < 1 || idBytes > 256) throw new Error(`aggregate id of ${idBytes} bytes, 1 to 256 allowed`);
  // A Buffer, because the column is bytea: a string would be read as an escape format.
  const data = Buffer.from(JSON.stringify(e.data));
  if (data.length > dataBytesMax) throw new Error(`data of ${data.length} bytes exceeds ${dataBytesMax}`);
  const { rows } = await client.query(addEventSQL, [
    e.type, e.version ?? 1, e.topic, e.aggregateType, e.aggregateId, e.producer, e.traceParent ?? "", data,
  ]);
  return rows[0].event_id;
}

async function placeOrder(client, id, product, qty) {
  await client.query("BEGIN");
  try {
    await client.query("INSERT INTO orders (id, product, qty, state) VALUES ($1, $2, $3, 'PLACED')", [id, product, qty]);
    const eventId = await addEvent(client, {
      type: "OrderPlaced",
      topic: "orders",
      aggregateType: "order",
      aggregateId: id,
      producer: "order-node",
      data: { id, product, qty },
      traceParent: process.env.TRACEPARENT,
    });
    await client.query("COMMIT");
    return eventId;
  } catch (err) {
    // The first error is the one to tell; if this fails too, the connection's end rolls back.
    await client.query("ROLLBACK").catch(() => {});
    throw err;
  }
}

async function main(args) {
  const url = process.env.DATABASE_URL;
  if (args.length !== 3 || !/^\d+$/.test(args[2]) || !url) {
    console.error("usage: DATABASE_URL=postgres://... node place_order.mjs ORDER PRODUCT QTY");
    return 2;
  }
  const [id, product, qty] = [args[0], args[1], Number(args[2])];
  const client = new pg.Client({ connectionString: url });
  try {
    await client.connect();
    console.log(id, await placeOrder(client, id, product, qty));
    return 0;
  } catch (err) {
    console.error(`place order ${id}: ${err.message}`);
    return 1;
  } finally {
    await client.end().catch(() => {});
  }
}

process.exitCode = await main(process.argv.slice(2));
