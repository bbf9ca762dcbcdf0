package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// postgresStandby returns the settings of a PostgreSQL that follows Options.Upstream, if that is given, and how its
// data are made.
func (s *Server) postgresStandby(bin, dir, data string) (settings map[string]string, prepare func(context.Context) error, err error) {
	if s.options.Upstream == "" {
		return nil, func(ctx context.Context) error { return s.initPostgres(ctx, bin, dir, data) }, nil
	}
	upstream, err := s.upstream("postgres")
	if err != nil {
		return nil, nil, err
	}
	primary, err := s.launcher.serverOf(s.options.Upstream)
	if err != nil {
		return nil, nil, err
	}
	settings = map[string]string{
		"primary_conninfo": fmt.Sprintf("host=%s port=%s user=%s dbname=postgres application_name=standby",
			upstream.Hostname(), upstream.Port(), upstream.User.Username()),
		"hot_standby": "on",
	}
	return settings, func(ctx context.Context) error { return s.copyPostgres(ctx, primary, data) }, nil
}

// serverOf returns the server that has a URL.
func (l *Launcher) serverOf(url string) (*Server, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.servers, func(s *Server) bool { return s.url == url })
	if i < 0 {
		return nil, fmt.Errorf("upstream %s is no server of this launcher", url)
	}
	return l.servers[i], nil
}

// copyPostgres makes a standby's data. The primary is away for a moment: its files are copied as they are, for not
// every package of PostgreSQL has pg_basebackup.
func (s *Server) copyPostgres(ctx context.Context, primary *Server, data string) error {
	if exists(data, "global", "pg_control") {
		return nil
	}
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	if err := primary.Stop(); err != nil {
		return err
	}
	copied := s.launcher.run(ctx, command{
		path: "/bin/cp", args: []string{"-a", filepath.Join(primary.nodes[0].dir, "data"), data}, user: postgresUser,
	}, filepath.Dir(data))
	if err := errors.Join(copied, primary.Restart(ctx)); err != nil {
		return err
	}
	slots, err := filepath.Glob(filepath.Join(data, "pg_replslot", "*")) // They are the primary's.
	for _, slot := range slots {
		err = errors.Join(err, os.RemoveAll(slot))
	}
	return errors.Join(err, write(filepath.Join(data, "standby.signal")))
}

// Promote makes a primary of a standby and returns when it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	if s.options.Upstream == "" || s.kind != Postgres && s.kind != Postgres17 {
		return fmt.Errorf("%s: promote: it is no standby", s.kind)
	}
	bin, err := postgresBin(s.kind)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.nodes[0].dir
	return s.launcher.run(ctx, command{
		path: filepath.Join(bin, "pg_ctl"), args: []string{"-D", filepath.Join(dir, "data"), "-w", "promote"}, user: postgresUser,
	}, dir)
}
