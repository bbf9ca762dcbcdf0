package launch

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	internal, err := s.reserve(3, false)
	if err != nil {
		return err
	}
	scheme, plain, secure, err := s.rabbitListeners(ports[0], internal[2])
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	config := filepath.Join(dir, "rabbitmq")
	settings := map[string]string{
		"listeners.tcp.1":                   address(plain),
		"vm_memory_high_watermark.absolute": "1GiB",
		"disk_free_limit.absolute":          "50MB",
	}
	maps.Copy(settings, secure)
	lines := s.settings(settings, "%s = %s")
	none := filepath.Join(dir, "none")
	env := []string{
		"RABBITMQ_NODENAME=settle" + strconv.Itoa(ports[0]) + "@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(plain),
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
		ready: func(ctx context.Context) error {
			return errors.Join(probeRabbit(ctx, plain), probeTCP(ctx, ports[0]))
		},
		stopSignal: syscall.SIGTERM,
	}}
	s.url = fmt.Sprintf("%s://guest:guest@%s/", scheme, address(ports[0]))
	return nil
}

// rabbitListeners returns where plain connections go, and the settings of the others. With TLS the first are for
// the sign of life only, on a port that nobody is told.
func (s *Server) rabbitListeners(port, hidden int) (scheme string, plain int, secure map[string]string, err error) {
	if !s.options.TLS {
		return "amqp", port, nil, nil
	}
	files, err := s.secure("")
	if err != nil {
		return "", 0, nil, err
	}
	verify := "verify_none"
	if s.options.ClientCerts {
		verify = "verify_peer"
	}
	return "amqps", hidden, map[string]string{
		"listeners.ssl.1":                  address(port),
		"ssl_options.cacertfile":           files.authority,
		"ssl_options.certfile":             files.certificate,
		"ssl_options.keyfile":              files.key,
		"ssl_options.verify":               verify,
		"ssl_options.fail_if_no_peer_cert": strconv.FormatBool(s.options.ClientCerts),
	}, nil
}
