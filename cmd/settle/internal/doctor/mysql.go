package doctor

import (
	"context"
	"database/sql"
	"strings"
)

// mysql looks at a MySQL or MariaDB server.
func (l *look) mysql(ctx context.Context) {
	var version string
	if err := l.db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		l.failed("version", err)
	} else {
		l.ok("server %s", version)
	}
	l.clock(ctx, "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")
	l.mysqlRights(ctx)
	l.mysqlSettings(ctx)
	l.held(ctx, "transaction", `SELECT coalesce(max(TIMESTAMPDIFF(SECOND, trx_started, NOW())), 0) FROM information_schema.innodb_trx
		WHERE trx_mysql_thread_id <> CONNECTION_ID()`, l.cfg.TransactionMax,
		"find it in information_schema.innodb_trx and KILL it: old versions of rows are kept for it, and the events behind it wait")
	l.ages(ctx)
}

// mysqlRights runs statements that touch no row: rights are checked before rows are looked for.
func (l *look) mysqlRights(ctx context.Context) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		l.failed("rights", err)
		return
	}
	defer func() { _ = tx.Rollback() }() // Nothing was written.
	lacking := false
	for _, text := range []string{
		"UPDATE settle_relay SET seq = seq WHERE 1 = 0",
		"UPDATE settle_outbox SET seq = seq WHERE 1 = 0",
		"DELETE FROM settle_outbox WHERE 1 = 0",
		"INSERT INTO settle_relay (shard) SELECT 0 FROM settle_relay WHERE 1 = 0",
		"DELETE FROM settle_relay_mark WHERE 1 = 0",
		"DELETE FROM settle_relay_parked WHERE 1 = 0",
	} {
		if _, err := tx.ExecContext(ctx, text); err != nil {
			lacking = true
			l.add(Fail, "GRANT SELECT, INSERT, UPDATE, DELETE on the tables of settle", "the user may not: %s: %v", text, err)
		}
	}
	if !lacking {
		l.ok("the user has the rights that it needs")
	}
}

// packetMin lets eight of the largest events into one statement.
const packetMin = 16 << 20

func (l *look) mysqlSettings(ctx context.Context) {
	settings, err := l.mysqlVariables(ctx)
	if err != nil {
		l.failed("settings", err)
		return
	}
	warn := func(wrong bool, name, do string) {
		if wrong {
			l.add(Warn, do, "%s is %s", name, settings[name])
			return
		}
		l.ok("%s is %s", name, settings[name])
	}
	mode := strings.ToUpper(settings["sql_mode"])
	warn(!strings.Contains(mode, "STRICT_"), "sql_mode", "add STRICT_TRANS_TABLES: else what is too long is cut in programs of other languages")
	warn(strings.EqualFold(settings["log_bin"], "ON") && settings["binlog_format"] != "" && settings["binlog_format"] != "ROW",
		"binlog_format", "set it to ROW: READ COMMITTED cannot be logged as statements")
	warn(settings["innodb_autoinc_lock_mode"] == "2" && settings["binlog_format"] == "STATEMENT", "innodb_autoinc_lock_mode", "set binlog_format to ROW")
	warn(settings["innodb_flush_log_at_trx_commit"] != "1", "innodb_flush_log_at_trx_commit", "set it to 1: a crash may lose what was committed, after its event was published")
	if strings.EqualFold(settings["log_bin"], "ON") {
		warn(settings["sync_binlog"] != "1", "sync_binlog", "set it to 1: a replica may have less than was committed")
	}
	packet, err := l.number(ctx, "SELECT @@max_allowed_packet")
	if err != nil {
		l.failed("max_allowed_packet", err)
		return
	}
	if packet < packetMin {
		l.add(Warn, "set it to 16M: several events travel in one statement, of up to 1 MiB each", "max_allowed_packet is %d", packet)
		return
	}
	l.ok("max_allowed_packet is %d", packet)
}

func (l *look) mysqlVariables(ctx context.Context) (map[string]string, error) {
	rows, err := l.db.QueryContext(ctx, `SHOW GLOBAL VARIABLES WHERE Variable_name IN
		('sql_mode', 'log_bin', 'binlog_format', 'innodb_autoinc_lock_mode', 'innodb_flush_log_at_trx_commit', 'sync_binlog')`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name string
		var value sql.NullString
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		all[name] = value.String
	}
	return all, rows.Err()
}
