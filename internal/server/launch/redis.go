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
	scheme, plain, secure, err := s.redisListeners(ports[0])
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	config := filepath.Join(dir, "redis.conf")
	lines := slices.Concat([]string{`save ""`}, s.settings(joined(secure, map[string]string{
		"bind":       "127.0.0.1",
		"port":       strconv.Itoa(plain),
		"dir":        dir,
		"appendonly": "yes",
	}), "%s %s"))
	s.nodes = []*node{{
		dir:        dir,
		main:       command{path: server, args: []string{config}},
		prepare:    func(context.Context) error { return write(config, lines...) },
		ready:      func(ctx context.Context) error { return probeRedis(ctx, plain) },
		stopSignal: syscall.SIGTERM,
	}}
	s.url = fmt.Sprintf("%s://%s/0", scheme, address(ports[0]))
	return nil
}

// redisListeners returns where plain connections go, and the settings of the others. With TLS the first are for the
// sign of life only, on a port that nobody is told.
func (s *Server) redisListeners(port int) (scheme string, plain int, secure map[string]string, err error) {
	if !s.options.TLS {
		return "redis", port, nil, nil
	}
	hidden, err := s.reserve(1, false)
	if err != nil {
		return "", 0, nil, err
	}
	files, err := s.secure("")
	if err != nil {
		return "", 0, nil, err
	}
	demanded := "no"
	if s.options.ClientCerts {
		demanded = "yes"
	}
	return "rediss", hidden[0], map[string]string{
		"tls-port":         strconv.Itoa(port),
		"tls-cert-file":    files.certificate,
		"tls-key-file":     files.key,
		"tls-ca-cert-file": files.authority,
		"tls-auth-clients": demanded,
	}, nil
}
