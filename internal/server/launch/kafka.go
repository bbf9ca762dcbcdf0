package launch

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kafkaCluster is any cluster ID: 16 bytes, base64. The data directory proves that a node is ours.
const kafkaCluster = "AAAAAAAAAAAAAAAAAAAAAQ"

// logToOutput has a Java server log where all others do.
const logToOutput = `status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out`

// java returns the command of a Java server whose jars are cached and whose files are in dir.
func java(dir, jars, heap string, args ...string) (command, error) {
	path, err := program("java")
	if err != nil {
		return command{}, err
	}
	classes, err := cached(jars)
	if err != nil {
		return command{}, err
	}
	flags := []string{
		"-Xmx" + heap, "-Xms64m", "-XX:+UseSerialGC", "-XX:-UsePerfData",
		"-Djava.awt.headless=true", "-Djava.io.tmpdir=" + dir,
		"-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"),
		"-cp", filepath.Join(classes, "*"),
	}
	return command{path: path, args: slices.Concat(flags, args)}, nil
}

func (s *Server) planKafka(count int) error {
	ports, err := s.reserve(count, true)
	if err != nil {
		return err
	}
	controllers, err := s.reserve(count, false)
	if err != nil {
		return err
	}
	secure, protocol, err := s.kafkaSecure()
	if err != nil {
		return err
	}
	var voters []string
	for i, p := range controllers {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, address(p)))
	}
	for i := range count {
		dir := filepath.Join(s.dir, fmt.Sprintf("node%d", i))
		config := filepath.Join(dir, "server.properties")
		main, err := java(dir, "kafka", "256m", "-XX:TieredStopAtLevel=1", "kafka.Kafka", config)
		if err != nil {
			return err
		}
		format, err := java(dir, "kafka", "128m", slices.Concat([]string{
			"-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format",
			"--ignore-formatted", "-t", kafkaCluster, "-c", config,
		}, s.kafkaScram())...)
		if err != nil {
			return err
		}
		settings := kafkaSettings(count, i, strings.Join(voters, ","), dir)
		settings["listeners"] = protocol + "://" + address(ports[i]) + ",CONTROLLER://" + address(controllers[i])
		settings["advertised.listeners"] = protocol + "://" + address(ports[i])
		lines := s.settings(joined(secure, settings), "%s=%s")
		s.nodes = append(s.nodes, &node{
			dir:  dir,
			main: main,
			prepare: func(ctx context.Context) error {
				if err := write(config, lines...); err != nil {
					return err
				}
				if err := write(filepath.Join(dir, "log4j2.properties"), logToOutput); err != nil {
					return err
				}
				if exists(dir, "data", "meta.properties") {
					return nil
				}
				return s.launcher.run(ctx, format, dir)
			},
			// The port opens when the broker has caught up with the controller and may serve.
			ready:      func(ctx context.Context) error { return probeTCP(ctx, ports[i]) },
			stopSignal: syscall.SIGTERM,
		})
		if count > 1 {
			// The last one asks a quorum that is gone for leave to stop, and waits for minutes.
			s.nodes[i].stopTimeout = 4 * time.Second
		}
	}
	scheme := "kafka"
	if s.options.TLS {
		scheme = "kafka+tls"
	}
	s.url = scheme + "://" + s.user() + addresses(ports)
	return nil
}

// kafkaSettings are those of a small node that is quick to start, and to start again after a SIGKILL.
func kafkaSettings(count, i int, voters, dir string) map[string]string {
	replicas, inSync := "1", "1"
	if count > 1 {
		replicas, inSync = "3", "2"
	}
	return map[string]string{
		"process.roles":             "broker,controller",
		"node.id":                   strconv.Itoa(i + 1),
		"controller.quorum.voters":  voters,
		"controller.listener.names": "CONTROLLER",
		"log.dirs":                  filepath.Join(dir, "data"),

		// A client that misspells a topic shall hear of it.
		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              inSync,
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
		"share.coordinator.state.topic.num.partitions":     "4",

		"group.initial.rebalance.delay.ms": "0",
		"group.min.session.timeout.ms":     "1000",
		// A broker that was killed may not register again until its old session has run out.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",

		"num.network.threads":  "2",
		"num.io.threads":       "4",
		"num.replica.fetchers": "1",
		// The default buffer, 128 MiB, would be half of the heap.
		"log.cleaner.dedupe.buffer.size": "4194304",
		"log.cleaner.threads":            "1",
		"log.segment.bytes":              "67108864",
		"log.index.size.max.bytes":       "1048576",
	}
}

func (s *Server) planConnect() error {
	upstream, err := s.upstream("kafka")
	if err != nil {
		return err
	}
	ports, err := s.reserve(1, true)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "node")
	config := filepath.Join(dir, "worker.properties")
	main, err := java(dir, "connect", "512m", "org.apache.kafka.connect.cli.ConnectDistributed", config)
	if err != nil {
		return err
	}
	name := "connect-" + strconv.Itoa(ports[0])
	lines := s.settings(map[string]string{
		"bootstrap.servers":                 upstream.Host,
		"listeners":                         "http://" + address(ports[0]),
		"group.id":                          name,
		"config.storage.topic":              name + "-configs",
		"config.storage.replication.factor": "1",
		"offset.storage.topic":              name + "-offsets",
		"offset.storage.replication.factor": "1",
		"offset.storage.partitions":         "1",
		"offset.flush.interval.ms":          "1000",
		"status.storage.topic":              name + "-status",
		"status.storage.replication.factor": "1",
		"status.storage.partitions":         "1",
		// Debezium's outbox router hands a payload on as text, which this writes as it is.
		"key.converter":   "org.apache.kafka.connect.storage.StringConverter",
		"value.converter": "org.apache.kafka.connect.storage.StringConverter",
		// Everything is on the class path: there is no plugin path to scan.
		"plugin.discovery": "service_load",
		// A worker started again after a SIGKILL waits for its old self to leave the group.
		"session.timeout.ms":                      "3000",
		"heartbeat.interval.ms":                   "500",
		"scheduled.rebalance.max.delay.ms":        "0",
		"connector.client.config.override.policy": "All",
	}, "%s=%s")
	health := "http://" + address(ports[0]) + "/health"
	s.nodes = []*node{{
		dir:  dir,
		main: main,
		prepare: func(context.Context) error {
			if err := write(filepath.Join(dir, "log4j2.properties"), logToOutput); err != nil {
				return err
			}
			return write(config, lines...)
		},
		ready:      func(ctx context.Context) error { return probeHTTP(ctx, health, http.StatusOK) },
		stopSignal: syscall.SIGTERM,
	}}
	s.url = "http://" + address(ports[0])
	return nil
}
