package launch

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

func (s *Server) planRedis() error {
	server, err := program("redis-server")
	if err != nil {
		return err
	}
	ports, err := s.reserve(1, true)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	config := filepath.Join(dir, "redis.conf")
	lines := slices.Concat([]string{`save ""`}, s.settings(map[string]string{
		"bind":       "127.0.0.1",
		"port":       strconv.Itoa(ports[0]),
		"dir":        dir,
		"appendonly": "yes",
	}, "%s %s"))
	s.nodes = []*node{{
		dir:        dir,
		main:       command{path: server, args: []string{config}},
		prepare:    func(context.Context) error { return write(config, lines...) },
		ready:      func(ctx context.Context) error { return probeRedis(ctx, ports[0]) },
		stopSignal: syscall.SIGTERM,
	}}
	s.url = fmt.Sprintf("redis://%s/0", address(ports[0]))
	return nil
}
