package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// postgresUser runs PostgreSQL and PgBouncer, which refuse root.
const postgresUser = "postgres"

func (s *Server) planPostgres() error {
	bin, err := postgresBin(s.kind)
	if err != nil {
		return err
	}
	ports, err := s.reserve(1, true)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	data := filepath.Join(dir, "data")
	args := []string{"-D", data}
	following, prepare, err := s.postgresStandby(bin, dir, data)
	if err != nil {
		return err
	}
	secure, prepareSecure, err := s.postgresSecure(dir)
	if err != nil {
		return err
	}
	for _, setting := range s.settings(joined(joined(secure, following), map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(ports[0]),
		"unix_socket_directories": "",
		"wal_level":               "logical",
		"max_connections":         "1000", // A shop without a broker has up to 38 for each of its eight services.
		"max_replication_slots":   "40",
		"max_wal_senders":         "40",
		"log_line_prefix":         "%m [%p] ",
		// In the data directory, where a killed server leaves nothing that outlives it.
		"dynamic_shared_memory_type": "mmap",
	}), "%s=%s") {
		args = append(args, "-c", setting)
	}
	s.nodes = []*node{{
		dir:  dir,
		main: command{path: filepath.Join(bin, "postgres"), args: args, user: postgresUser},
		prepare: func(ctx context.Context) error {
			return errors.Join(prepareSecure(ctx), prepare(ctx))
		},
		ready:      func(ctx context.Context) error { return probePostgres(ctx, ports[0]) },
		stopSignal: syscall.SIGINT, // "fast": it does not wait for clients to leave
		// "Immediate": as good as killed, but its segment of shared memory goes with it.
		closeSignal: syscall.SIGQUIT,
	}}
	mode := "disable"
	if s.options.TLS {
		mode = "verify-full"
	}
	s.url = fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=%s", address(ports[0]), mode)
	return nil
}

func (s *Server) initPostgres(ctx context.Context, bin, dir, data string) error {
	if exists(data, "global", "pg_control") {
		return nil
	}
	// Left by one that was interrupted.
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	return s.launcher.run(ctx, command{
		path: filepath.Join(bin, "initdb"),
		args: []string{"-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"},
		user: postgresUser,
	}, dir)
}

// postgresBin returns the folder of the newest PostgreSQL of the distribution, or of the cached one.
func postgresBin(kind Kind) (string, error) {
	if kind == Postgres17 {
		bin, err := cached("postgres17/bin")
		if err != nil {
			return "", err
		}
		return filepath.EvalSymlinks(bin)
	}
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	bins = slices.DeleteFunc(bins, func(bin string) bool { return !exists(bin, "initdb") })
	if len(bins) == 0 {
		return "", fmt.Errorf("no PostgreSQL in /usr/lib/postgresql; %s", howToInstall)
	}
	return slices.MaxFunc(bins, func(a, b string) int { return version(a) - version(b) }), nil
}

func version(bin string) int {
	number, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return number
}

func (s *Server) planMariaDB() error {
	server, err := program("mariadbd")
	if err != nil {
		return err
	}
	install, err := program("mariadb-install-db")
	if err != nil {
		return err
	}
	ports, err := s.reserve(1, true)
	if err != nil {
		return err
	}
	const user = "mysql"
	dir := filepath.Join(s.dir, "node")
	data := filepath.Join(dir, "data")
	secure, err := s.mariaSecure(user)
	if err != nil {
		return err
	}
	args := slices.Concat([]string{"--no-defaults", "--datadir=" + data}, s.settings(joined(secure, map[string]string{
		"bind-address":    "127.0.0.1",
		"port":            strconv.Itoa(ports[0]),
		"socket":          filepath.Join(dir, "socket"),
		"pid-file":        filepath.Join(dir, "pid"),
		"server-id":       "1",
		"max-connections": "300",
		"log-bin":         "binlog",
		"binlog-format":   "ROW",
		// The names of the columns too, so that a reader of the log needs no schema.
		"binlog-row-metadata":            "FULL",
		"sync-binlog":                    "1",
		"innodb-flush-log-at-trx-commit": "1",
		"character-set-server":           "utf8mb4",
		"skip-name-resolve":              "ON",
	}), "--%s=%s"))
	s.nodes = []*node{{
		dir:  dir,
		main: command{path: server, args: args, user: user},
		prepare: func(ctx context.Context) error {
			// Its script ends with the time zones and help; the last table tells that it got there.
			done := filepath.Join(dir, "installed")
			if exists(done) {
				return nil
			}
			if err := os.RemoveAll(data); err != nil {
				return err
			}
			err := s.launcher.run(ctx, command{path: install, user: user, args: []string{
				"--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db",
			}}, dir)
			if err != nil {
				return err
			}
			return write(done)
		},
		ready:      func(ctx context.Context) error { return probeMariaDB(ctx, ports[0]) },
		stopSignal: syscall.SIGTERM,
	}}
	s.url = fmt.Sprintf("mysql://root@%s/", address(ports[0]))
	return nil
}

func (s *Server) planPgBouncer() error {
	server, err := program("pgbouncer")
	if err != nil {
		return err
	}
	upstream, err := s.upstream("postgres")
	if err != nil {
		return err
	}
	ports, err := s.reserve(1, true)
	if err != nil {
		return err
	}
	database := fmt.Sprintf("* = host=%s port=%s user=%s", upstream.Hostname(), upstream.Port(), upstream.User.Username())
	if password, set := upstream.User.Password(); set {
		database += " password='" + password + "'"
	}
	lines := slices.Concat([]string{"[databases]", database, "[pgbouncer]"}, s.settings(map[string]string{
		"listen_addr":               "127.0.0.1",
		"listen_port":               strconv.Itoa(ports[0]),
		"unix_socket_dir":           "",
		"auth_type":                 "any",
		"pool_mode":                 "transaction",
		"max_client_conn":           "1000",
		"default_pool_size":         "20",
		"ignore_startup_parameters": "extra_float_digits",
	}, "%s = %s"))
	dir := filepath.Join(s.dir, "node")
	config := filepath.Join(dir, "pgbouncer.ini")
	s.nodes = []*node{{
		dir:        dir,
		main:       command{path: server, args: []string{config}, user: postgresUser},
		prepare:    func(context.Context) error { return write(config, lines...) },
		ready:      func(ctx context.Context) error { return probePostgres(ctx, ports[0]) },
		stopSignal: syscall.SIGINT,
	}}
	s.url = fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", address(ports[0]))
	return nil
}
