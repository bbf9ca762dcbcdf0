package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// postgres looks at a PostgreSQL server.
func (l *look) postgres(ctx context.Context) {
	l.postgresVersion(ctx)
	l.clock(ctx, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
	l.postgresRights(ctx)
	l.postgresSettings(ctx)
	l.postgresOld(ctx)
	l.postgresLog(ctx)
	l.ages(ctx)
	l.postgresSlots(ctx)
}

// postgresOldest is the first version that has all that we need: the log is read in binary form.
const postgresOldest = 140000

func (l *look) postgresVersion(ctx context.Context) {
	var version string
	var number int64
	var standby bool
	err := l.db.QueryRowContext(ctx, "SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery()").
		Scan(&version, &number, &standby)
	switch {
	case err != nil:
		l.failed("version", err)
	case number < postgresOldest:
		l.add(Fail, "use PostgreSQL 14 or newer", "PostgreSQL is %s", version)
	case standby:
		l.add(Fail, "name the primary in the URL (target_session_attrs=read-write with several hosts)", "PostgreSQL %s is a standby, which takes no writes", version)
	default:
		l.ok("PostgreSQL %s", version)
	}
}

// postgresRights looks at what a relay does, and unless only that is asked, at what a service does.
func (l *look) postgresRights(ctx context.Context) {
	rights := []struct{ table, right string }{
		{"settle_schema", "SELECT"},
		{"settle_outbox", "SELECT"},
		{"settle_outbox", "DELETE"},
		{"settle_outbox_0", "TRUNCATE"},
		{"settle_outbox_1", "TRUNCATE"},
		{"settle_outbox_2", "TRUNCATE"},
		{"settle_outbox_3", "TRUNCATE"},
		{"settle_tick", "SELECT"},
		{"settle_tick", "INSERT"},
		{"settle_tick", "DELETE"},
		{"settle_relay", "SELECT"},
		{"settle_relay", "INSERT"},
		{"settle_relay", "UPDATE"},
		{"settle_relay_mark", "SELECT"},
		{"settle_relay_mark", "INSERT"},
		{"settle_relay_mark", "UPDATE"},
		{"settle_relay_mark", "DELETE"},
		{"settle_relay_parked", "SELECT"},
		{"settle_relay_parked", "INSERT"},
		{"settle_relay_parked", "UPDATE"},
		{"settle_relay_parked", "DELETE"},
	}
	if !l.cfg.Relay {
		for _, table := range []string{"settle_inbox", "settle_letter", "settle_timer", "settle_call", "settle_answer", "settle_lease"} {
			for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
				rights = append(rights, struct{ table, right string }{table, right})
			}
		}
		rights = append(rights, struct{ table, right string }{"settle_outbox", "INSERT"})
	}
	lacking := 0
	for _, r := range rights {
		var has bool
		err := l.db.QueryRowContext(ctx, "SELECT coalesce(has_table_privilege(to_regclass($1), $2), false)", r.table, r.right).Scan(&has)
		if err != nil {
			l.failed("right to "+r.right+" "+r.table, err)
			return
		}
		if !has {
			lacking++
			l.add(Fail, fmt.Sprintf("GRANT %s ON %s TO the role", r.right, r.table), "the role may not %s %s", r.right, r.table)
		}
	}
	if lacking == 0 {
		l.ok("the role has the rights that it needs")
	}
}

func (l *look) postgresSettings(ctx context.Context) {
	for _, s := range []struct{ name, want, do string }{
		{"default_transaction_isolation", "read committed", "settle sets its own; programs in other languages must run at READ COMMITTED, or run again after a conflict"},
		{"fsync", "on", "turn it on: a crash may lose what was committed"},
		{"full_page_writes", "on", "turn it on: a crash may damage the database"},
		{"autovacuum", "on", "turn it on"},
	} {
		var value string
		if err := l.db.QueryRowContext(ctx, "SELECT current_setting($1)", s.name).Scan(&value); err != nil {
			l.failed(s.name, err)
		} else if value != s.want {
			l.add(Warn, s.do, "%s is %s", s.name, value)
		} else {
			l.ok("%s is %s", s.name, value)
		}
	}
	var commit string
	if err := l.db.QueryRowContext(ctx, "SELECT current_setting('synchronous_commit')").Scan(&commit); err == nil && commit == "off" {
		l.add(Warn, "turn it on where events are written: a transaction may vanish in a crash after its event was published", "synchronous_commit is off")
	}
}

// postgresOld finds what keeps dead rows from being removed.
func (l *look) postgresOld(ctx context.Context) {
	l.held(ctx, "transaction", `SELECT coalesce(extract(epoch FROM now() - min(xact_start)), 0)::bigint FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`,
		l.cfg.TransactionMax, "find it in pg_stat_activity (xact_start) and end it: dead rows are kept for it")
	l.held(ctx, "prepared transaction", "SELECT coalesce(ceil(extract(epoch FROM now() - min(prepared))), 0)::bigint FROM pg_prepared_xacts WHERE database = current_database()",
		l.cfg.PreparedMax, "find it in pg_prepared_xacts, then COMMIT PREPARED or ROLLBACK PREPARED: its events are not seen, dead rows are kept for it")
}

func (l *look) held(ctx context.Context, what, query string, limit time.Duration, do string) {
	seconds, err := l.number(ctx, query)
	switch age := time.Duration(seconds) * time.Second; {
	case err != nil:
		l.failed(what, err)
	case age > limit:
		l.add(Warn, do, "a %s is %s old", what, age)
	default:
		l.ok("no %s is older than %s", what, limit)
	}
}

// postgresLog looks at the write-ahead log and its slots.
func (l *look) postgresLog(ctx context.Context) {
	level := Warn
	if l.cfg.WAL {
		level = Fail
	}
	var wal string
	var replication bool
	var used, slots int64
	err := l.db.QueryRowContext(ctx, `SELECT current_setting('wal_level'), r.rolreplication OR r.rolsuper,
		(SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::bigint
		FROM pg_roles r WHERE r.rolname = current_user`).Scan(&wal, &replication, &used, &slots)
	if err != nil {
		l.failed("wal_level", err)
		return
	}
	switch {
	case wal != "logical" && l.cfg.WAL:
		l.add(level, "set wal_level = logical in postgresql.conf and restart the server, or use mode window", "wal_level is %s", wal)
	default:
		l.ok("wal_level is %s", wal)
	}
	if l.cfg.WAL && !replication {
		l.add(level, "ALTER ROLE ... REPLICATION", "the role may not read the log")
	}
	if l.cfg.WAL && used >= slots && !l.slotThere(ctx) {
		l.add(level, "raise max_replication_slots, or drop a slot that nobody needs", "all %d replication slots are taken", slots)
	}
	if l.cfg.WAL {
		l.publication(ctx)
	}
	if l.cfg.Table != "" {
		l.foreignTable(ctx)
	}
	l.replicationSlots(ctx)
}

func (l *look) slotThere(ctx context.Context) bool {
	n, err := l.number(ctx, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", l.cfg.Slot)
	return err == nil && n > 0
}

// publication finds out whether it is there, or can be made.
func (l *look) publication(ctx context.Context) {
	name, table := l.cfg.Publication, l.cfg.Table
	if name == "" {
		name = "settle_outbox"
	}
	if table == "" {
		table = "settle_outbox"
	}
	var there, may bool
	err := l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_publication WHERE pubname = $1),
		has_database_privilege(current_database(), 'CREATE')
		AND coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($2)), false)`, name, table).Scan(&there, &may)
	switch {
	case err != nil:
		l.failed("publication "+name, err)
	case !there && !may:
		l.add(Fail, fmt.Sprintf("as the table's owner: CREATE PUBLICATION %s FOR TABLE %s WITH (publish = 'insert', publish_via_partition_root = true)", name, table),
			"publication %s is missing, and the role cannot make it", name)
	default:
		l.ok("publication %s is there, or is made", name)
	}
}

// foreignTable looks at a table of Debezium's layout.
func (l *look) foreignTable(ctx context.Context) {
	n, err := l.number(ctx, `SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND NOT attisdropped
		AND attname IN ('id', 'aggregatetype', 'aggregateid', 'type', 'payload')`, l.cfg.Table)
	switch {
	case err != nil:
		l.failed("table "+l.cfg.Table, err)
	case n != 5:
		l.add(Fail, "name the table in the configuration as it is called", "table %s with columns id, aggregatetype, aggregateid, type and payload is not there", l.cfg.Table)
	default:
		l.ok("table %s has the columns of Debezium", l.cfg.Table)
	}
}

func (l *look) replicationSlots(ctx context.Context) {
	rows, err := l.db.QueryContext(ctx, `SELECT slot_name, active, coalesce(wal_status, ''), coalesce(pg_current_wal_lsn() - restart_lsn, 0)::bigint
		FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database() ORDER BY slot_name`)
	if err != nil {
		l.failed("replication slots", err)
		return
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		var name, status string
		var active bool
		var kept int64
		if err := rows.Scan(&name, &active, &status, &kept); err != nil {
			l.failed("replication slots", err)
			return
		}
		found = true
		l.slot(name, status, active, kept)
	}
	if err := rows.Err(); err != nil {
		l.failed("replication slots", err)
	}
	if !found {
		return
	}
	var bound string
	if err := l.db.QueryRowContext(ctx, "SELECT current_setting('max_slot_wal_keep_size')").Scan(&bound); err == nil && bound == "-1" {
		l.add(Warn, "set it: a slot that nobody reads keeps log until the disk is full", "max_slot_wal_keep_size has no bound")
	}
}

func (l *look) slot(name, status string, active bool, kept int64) {
	reader := "nobody reads it"
	if active {
		reader = "it is read"
	}
	drop := fmt.Sprintf("start what reads it, or drop it: SELECT pg_drop_replication_slot('%s')", name)
	switch {
	case status == "lost":
		l.add(Fail, "SELECT pg_drop_replication_slot('"+name+"'): a relay of settle's own table has dropped to the table and makes a new one, another reader has to begin anew", "slot %s is lost", name)
	case status == "unreserved":
		l.add(Warn, "see why its reader is behind: soon it is lost", "slot %s keeps %d MiB, more than it may", name, kept>>20)
	case kept > l.cfg.SlotBytesMax:
		l.add(Warn, drop, "slot %s keeps %d MiB of log, %s", name, kept>>20, reader)
	case !active:
		l.add(Warn, drop, "slot %s keeps %d MiB of log, %s", name, kept>>20, reader)
	default:
		l.ok("slot %s keeps %d MiB of log, %s", name, kept>>20, reader)
	}
}

// Slots of the outbox: half days, modulo 4. One is emptied when all of it is settled and older than the
// retention; what is in it two rounds later has been held up.
const (
	outboxSlots = 4
	outboxRound = 48 * time.Hour
)

func (l *look) postgresSlots(ctx context.Context) {
	stuck := false
	for slot := range outboxSlots {
		name := "settle_outbox_" + strconv.Itoa(slot)
		var oldest sql.NullInt64
		err := l.db.QueryRowContext(ctx, "SELECT min(created_at) FROM settle_outbox WHERE slot = $1", slot).Scan(&oldest)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			l.failed(name, err)
			return
		}
		if age := time.Since(time.Unix(0, oldest.Int64)).Round(time.Minute); oldest.Valid && age > outboxRound {
			stuck = true
			l.add(Warn, "see whether each of its shards has a relay, and how far it is: settle outbox status",
				"%s cannot be emptied: it has events of %s ago", name, age)
		}
	}
	if !stuck {
		l.ok("every part of the outbox is emptied in its turn")
	}
}
