package settlepgx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

// admin connects beside the store's pool, for what has to be done outside of a transaction.
func (w *WAL) admin(ctx context.Context, fn func(conn *pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, w.cc.Copy())
	if err != nil {
		return err
	}
	return errors.Join(fn(conn), conn.Close(context.WithoutCancel(ctx)))
}

// ensureSlot makes the publication and the slot when they are missing.
func (w *WAL) ensureSlot(ctx context.Context, shard int) error {
	return w.admin(ctx, func(conn *pgx.Conn) error {
		var level string
		if err := conn.QueryRow(ctx, "SHOW wal_level").Scan(&level); err != nil {
			return err
		}
		if level != "logical" {
			return fmt.Errorf("wal_level is %s, logical is needed: set it in postgresql.conf and restart the server", level)
		}
		var published bool
		err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_publication WHERE pubname = $1)", w.cfg.Publication).Scan(&published)
		if err == nil && !published {
			_, err = conn.Exec(ctx, fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish = 'insert', publish_via_partition_root = true)",
				pgx.Identifier{w.cfg.Publication}.Sanitize(), pgx.Identifier{w.cfg.Layout.Table}.Sanitize()))
		}
		if err != nil && !hasCode(err, "42710") { // Another process was quicker.
			return err
		}
		return w.makeSlot(ctx, conn, shard)
	})
}

func (w *WAL) makeSlot(ctx context.Context, conn *pgx.Conn, shard int) error {
	slot := w.slotName(shard)
	var status, database sql.NullString
	err := conn.QueryRow(ctx, "SELECT wal_status, database FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&status, &database)
	if err == nil && database.String != w.cc.Database {
		return fmt.Errorf("slot %s is of database %q, not %q: choose another name", slot, database.String, w.cc.Database)
	}
	if err == nil && status.String != "lost" {
		return nil
	}
	if err == nil {
		if w.cfg.Layout.foreign {
			return fmt.Errorf("slot %s: %w", slot, ErrSlotLost)
		}
		_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slot)
	} else if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	if err != nil {
		return err
	}
	create := "SELECT pg_create_logical_replication_slot($1, 'pgoutput')"
	if version, _ := strconv.Atoi(conn.PgConn().ParameterStatus("server_version")[:2]); w.cfg.Failover && version >= 17 {
		create = "SELECT pg_create_logical_replication_slot($1, 'pgoutput', failover => true)"
	}
	_, err = conn.Exec(ctx, create, slot)
	if hasCode(err, "42710") {
		err = nil
	}
	return err
}

// dropSlot gives a slot that is lost back: it keeps nothing, but its name.
func (w *WAL) dropSlot(ctx context.Context, shard int) error {
	return w.admin(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost' AND database = current_database()",
			w.slotName(shard))
		return err
	})
}

// slotLost returns ErrSlotLost when an error comes of that. The codes alone don't tell: a server that was not
// promoted yet has none of its primary's slots, or does not let anybody read them.
func (w *WAL) slotLost(ctx context.Context, shard int, err error) error {
	switch {
	case errors.Is(err, ErrSlotLost):
		return err
	case !hasCode(err, "42704") && !hasCode(err, "55000"): // no such slot; not in the state that is needed
		return nil
	}
	var lost bool
	qerr := w.store.QueryRow(ctx, `SELECT NOT pg_is_in_recovery() AND NOT EXISTS (SELECT 1 FROM pg_replication_slots
		WHERE slot_name = $1 AND database = current_database() AND coalesce(wal_status, '') <> 'lost')`, []any{w.slotName(shard)}, &lost)
	if qerr != nil || !lost {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrSlotLost, err)
}

// endStreams ends a stream of ours that has the slot: of an owner before us, or one that is about to end. Others
// that have it for a while must not be hurt: an operator who drops it, a standby that copies it.
func (w *WAL) endStreams(ctx context.Context, slot string) error {
	var ended int64
	return w.store.QueryRow(ctx, `SELECT count(pg_terminate_backend(a.pid)) FROM pg_replication_slots s
		JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1 AND a.application_name = $2`,
		[]any{slot, streamName(slot)}, &ended)
}

// look sees, now and then, how much log the slot keeps from being recycled, and writes a tick down: a place
// to fall back to.
func (w *WAL) look(ctx context.Context, lease relay.Lease) error {
	w.mu.Lock()
	due := time.Since(w.looked) >= w.cfg.WatchEvery
	if due {
		w.looked = time.Now()
	}
	w.mu.Unlock()
	if !due {
		return nil
	}
	if !w.cfg.Layout.foreign {
		if _, err := w.Sequence(ctx, lease); err != nil {
			return err
		}
		if err := w.rest(ctx, lease); err != nil {
			return err
		}
	}
	var status string
	var kept, keptMax int64
	err := w.store.QueryRow(ctx, `SELECT coalesce(s.wal_status, ''), coalesce(pg_current_wal_lsn() - s.restart_lsn, 0)::bigint,
		(SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
		FROM pg_replication_slots s WHERE s.slot_name = $1`, []any{w.slotName(lease.Shard)}, &status, &kept, &keptMax)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("slot %s is not there: %w", w.slotName(lease.Shard), ErrSlotLost)
	case err != nil:
		return err
	case status == "lost":
		return fmt.Errorf("slot %s: %w", w.slotName(lease.Shard), ErrSlotLost)
	}
	keptMax = max(0, keptMax)
	if w.cfg.Hooks.Slot != nil {
		w.cfg.Hooks.Slot(kept, keptMax)
	}
	if keptMax > 0 && kept > keptMax/2 {
		w.cfg.Logger.Error("replication slot keeps more than half of what it may: the relay is behind, soon events are read from the table",
			"slot", w.slotName(lease.Shard), "kept_bytes", kept, "kept_bytes_max", keptMax)
	}
	return nil
}

// rest moves the shard's position behind the last tick when the log has brought, and the relay settled,
// everything up to there: what an operator reads of windows then agrees with the log.
func (w *WAL) rest(ctx context.Context, lease relay.Lease) error {
	w.mu.Lock()
	s, epoch := w.stream, w.last.Epoch
	w.mu.Unlock()
	if s == nil || epoch%2 == 0 {
		return nil
	}
	var tick int64
	err := w.store.QueryRow(ctx, `SELECT (lsn - '0/0')::bigint FROM settle_tick WHERE shard = $1 ORDER BY tick DESC LIMIT 1`,
		[]any{int64(lease.Shard)}, &tick)
	if err != nil || int64(s.settled()) < tick {
		return err
	}
	return w.move(ctx, lease, outbox.Position{Epoch: epoch, Tick: tick})
}
