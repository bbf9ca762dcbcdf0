package launch

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func (s *Server) planNATS(count int) error {
	server, err := cached("nats/nats-server")
	if err != nil {
		return err
	}
	ports, err := s.reserve(count, true)
	if err != nil {
		return err
	}
	internal, err := s.reserve(2*count, false)
	if err != nil {
		return err
	}
	monitors, routes := internal[:count], internal[count:]
	shared, stream, err := s.natsLines()
	if err != nil {
		return err
	}
	for i := range count {
		dir := filepath.Join(s.dir, fmt.Sprintf("node%d", i))
		config := filepath.Join(dir, "nats.conf")
		lines := slices.Concat([]string{
			fmt.Sprintf("server_name: n%d", i),
			fmt.Sprintf("listen: %q", address(ports[i])),
			fmt.Sprintf("http: %q", address(monitors[i])),
			fmt.Sprintf("jetstream { store_dir: %q, %s }", filepath.Join(dir, "data"), strings.Join(stream, ", ")),
		}, shared)
		if count > 1 {
			lines = append(lines, fmt.Sprintf("cluster { name: settle, listen: %q, routes: [%s] }",
				address(routes[i]), "nats://"+strings.ReplaceAll(addresses(routes), ",", ", nats://")))
		}
		s.nodes = append(s.nodes, &node{
			dir:        dir,
			main:       command{path: server, args: []string{"-c", config}},
			prepare:    func(context.Context) error { return write(config, lines...) },
			ready:      func(ctx context.Context) error { return probeNATS(ctx, monitors[i], count > 1) },
			stopSignal: syscall.SIGTERM,
		})
	}
	s.url = "nats://" + s.user() + addresses(ports)
	return nil
}

// natsLines returns what all nodes have in their configuration: at its top, and in the jetstream block.
func (s *Server) natsLines() (top, stream []string, err error) {
	if s.options.TLS {
		files, err := s.secure("")
		if err != nil {
			return nil, nil, err
		}
		top = append(top, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: %t }",
			files.certificate, files.key, files.authority, s.options.ClientCerts))
	}
	if len(s.options.Users) > 0 {
		var users []string
		for _, name := range slices.Sorted(maps.Keys(s.options.Users)) {
			users = append(users, fmt.Sprintf("{ user: %q, password: %q }", name, s.options.Users[name]))
		}
		top = append(top, "authorization { users: ["+strings.Join(users, ", ")+"] }")
	}
	for _, line := range s.settings(nil, "%s: %s") {
		if inside, ok := strings.CutPrefix(line, "jetstream."); ok {
			stream = append(stream, inside)
		} else {
			top = append(top, line)
		}
	}
	return top, stream, nil
}
