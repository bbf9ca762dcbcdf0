package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

func (s *Server) planRabbit() error {
	const server = "/usr/lib/rabbitmq/bin/rabbitmq-server" // the one on PATH insists on the user rabbitmq
	if !exists(server) {
		return fmt.Errorf("no %s; %s", server, howToInstall)
	}
	epmd, err := program("epmd")
	if err != nil {
		return err
	}
	ports, err := s.reserve(1, true)
	if err != nil {
		return err
	}
	internal, err := s.reserve(2, false)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	config := filepath.Join(dir, "rabbitmq")
	lines := s.settings(map[string]string{
		"listeners.tcp.1":                   address(ports[0]),
		"vm_memory_high_watermark.absolute": "1GiB",
		"disk_free_limit.absolute":          "50MB",
	}, "%s = %s")
	none := filepath.Join(dir, "none")
	env := []string{
		"RABBITMQ_NODENAME=settle" + strconv.Itoa(ports[0]) + "@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(ports[0]),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(internal[0]),
		"ERL_EPMD_PORT=" + strconv.Itoa(internal[1]),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "data"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(dir, "logs"),
		"RABBITMQ_LOGS=-",
		"RABBITMQ_CONFIG_FILE=" + config,
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"),
		"RABBITMQ_CONF_ENV_FILE=" + none,
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + none + ".config",
		"RABBITMQ_PID_FILE=" + filepath.Join(dir, "pid"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		// The script then becomes the broker instead of waiting for it: what we kill is the broker itself.
		"RUNNING_UNDER_SYSTEMD=true",
	}
	s.nodes = []*node{{
		dir: dir,
		// Erlang's port mapper. Without one on our port, the broker forks one that outlives it.
		helper: &command{path: epmd, args: []string{"-port", strconv.Itoa(internal[1]), "-address", "127.0.0.1"}, env: env},
		main:   command{path: server, env: env},
		prepare: func(context.Context) error {
			return errors.Join(
				os.MkdirAll(filepath.Join(dir, "data"), 0o755),
				os.MkdirAll(filepath.Join(dir, "logs"), 0o755),
				write(filepath.Join(dir, "plugins"), "[]."),
				write(config+".conf", lines...),
			)
		},
		ready:      func(ctx context.Context) error { return probeRabbit(ctx, ports[0]) },
		stopSignal: syscall.SIGTERM,
	}}
	s.url = fmt.Sprintf("amqp://guest:guest@%s/", address(ports[0]))
	return nil
}
