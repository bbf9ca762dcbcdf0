package launch

import (
	"context"
	"path/filepath"
)

// postgresSecure returns the settings of a PostgreSQL that takes plain connections for the sign of life only: of
// its administrator to its own database.
func (s *Server) postgresSecure(dir string) (settings map[string]string, prepare func(context.Context) error, err error) {
	if !s.options.TLS {
		return nil, func(context.Context) error { return nil }, nil
	}
	files, err := s.secure(postgresUser)
	if err != nil {
		return nil, nil, err
	}
	method := "trust"
	if s.options.ClientCerts {
		method = "trust clientcert=verify-ca"
	}
	rules := filepath.Join(dir, "pg_hba.conf")
	prepare = func(context.Context) error {
		return write(rules, "hostnossl postgres postgres 127.0.0.1/32 trust",
			"hostssl all all 127.0.0.1/32 "+method, "hostssl replication all 127.0.0.1/32 "+method)
	}
	return map[string]string{
		"ssl": "on", "ssl_cert_file": files.certificate, "ssl_key_file": files.key, "ssl_ca_file": files.authority,
		"hba_file": rules,
	}, prepare, nil
}

// mariaSecure returns the settings of a MariaDB that serves nobody without TLS, and greets all the same.
func (s *Server) mariaSecure(user string) (map[string]string, error) {
	if !s.options.TLS {
		return nil, nil
	}
	files, err := s.secure(user)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"ssl-cert": files.certificate, "ssl-key": files.key, "ssl-ca": files.authority, "require-secure-transport": "ON",
	}, nil
}
