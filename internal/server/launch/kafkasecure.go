package launch

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kafkaSecure returns the settings by which brokers talk with clients and with one another, and the name of that
// protocol.
func (s *Server) kafkaSecure() (settings map[string]string, protocol string, err error) {
	protocol = "PLAINTEXT"
	settings = map[string]string{}
	if s.options.TLS {
		protocol = "SSL"
		if settings, err = s.kafkaTLS(); err != nil {
			return nil, "", err
		}
	}
	if len(s.options.Users) > 0 {
		protocol = "SASL_" + protocol
		maps.Copy(settings, s.kafkaLogins(protocol))
	}
	settings["inter.broker.listener.name"] = protocol
	settings["listener.security.protocol.map"] = protocol + ":" + protocol + ",CONTROLLER:PLAINTEXT"
	return settings, protocol, nil
}

func (s *Server) kafkaTLS() (map[string]string, error) {
	files, err := s.secure("")
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(files.key)
	if err != nil {
		return nil, err
	}
	certificate, err := os.ReadFile(files.certificate)
	if err != nil {
		return nil, err
	}
	demanded := "none"
	if s.options.ClientCerts {
		demanded = "required"
	}
	store := filepath.Join(s.dir, "server-store.pem") // Kafka wants both in one file.
	return map[string]string{
		"ssl.keystore.type":       "PEM",
		"ssl.keystore.location":   store,
		"ssl.truststore.type":     "PEM",
		"ssl.truststore.location": files.authority,
		"ssl.client.auth":         demanded,
	}, os.WriteFile(store, slices.Concat(key, certificate), 0o600)
}

// kafkaBroker is the name and the password by which brokers know one another where users are asked for.
const kafkaBroker = "broker"

// kafkaLogins returns the settings that have brokers ask who somebody is. PLAIN knows its users from here, SCRAM from
// the cluster's metadata; see kafkaScram.
func (s *Server) kafkaLogins(protocol string) map[string]string {
	plain := []string{
		"org.apache.kafka.common.security.plain.PlainLoginModule required",
		fmt.Sprintf("username=%q password=%q user_%s=%q", kafkaBroker, kafkaBroker, kafkaBroker, kafkaBroker),
	}
	for _, name := range slices.Sorted(maps.Keys(s.options.Users)) {
		plain = append(plain, fmt.Sprintf("user_%s=%q", name, s.options.Users[name]))
	}
	const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	prefix := "listener.name." + strings.ToLower(protocol) + "."
	return map[string]string{
		"sasl.enabled.mechanisms":                 "PLAIN," + strings.Join(kafkaScrams(), ","),
		"sasl.mechanism.inter.broker.protocol":    "PLAIN",
		prefix + "plain.sasl.jaas.config":         strings.Join(plain, " ") + ";",
		prefix + "scram-sha-256.sasl.jaas.config": scram,
		prefix + "scram-sha-512.sasl.jaas.config": scram,
	}
}

func kafkaScrams() []string { return []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} }

// kafkaScram returns what has a new cluster know the users by SCRAM.
func (s *Server) kafkaScram() []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(s.options.Users)) {
		for _, mechanism := range kafkaScrams() {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, name, s.options.Users[name]))
		}
	}
	return args
}
