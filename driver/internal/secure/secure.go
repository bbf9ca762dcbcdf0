// Package secure is what the drivers know of TLS: the files that a URL names, and whether a connection failed
// in a way that waiting does not mend.
//
// # What this package does not do
//
// It connects to nobody. PostgreSQL's files are its own driver's, under its own names.
package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// ErrTLS says that there is no connection by TLS before a person mends a certificate or the configuration:
// one side does not vouch for the other, or does not speak TLS, or a file is not usable.
var ErrTLS = errors.New("no connection by TLS")

// Files are PEM files that a URL names.
type Files struct {
	// CA has the authorities to trust. Default the system's.
	CA string
	// Cert and Key are our own certificate, for servers that ask for one. Default none.
	Cert, Key string
}

// Names are those of the files in a URL's query.
func Names() []string { return []string{"ca", "cert", "key"} }

// Take takes the files out of a URL's query.
func Take(values url.Values) (Files, error) {
	for _, name := range Names() {
		if given := values[name]; len(given) > 1 || len(given) == 1 && given[0] == "" {
			return Files{}, fmt.Errorf("%s is to name one file", name)
		}
	}
	f := Files{CA: values.Get("ca"), Cert: values.Get("cert"), Key: values.Get("key")}
	for _, name := range Names() {
		values.Del(name)
	}
	if (f.Cert == "") != (f.Key == "") {
		return Files{}, errors.New("a certificate needs its key, and a key its certificate: give cert and key, or none")
	}
	return f, nil
}

// Any reports whether a file is named.
func (f Files) Any() bool { return f != Files{} }

// Config returns a copy of base with the files in their place; base may be nil. The authorities are read now. The
// error is [ErrTLS].
func (f Files) Config(base *tls.Config) (*tls.Config, error) {
	config := base.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("%w: ca: %w", ErrTLS, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%w: ca: %s has no certificate in PEM", ErrTLS, f.CA)
		}
	}
	if f.Cert != "" {
		if _, err := f.pair(nil); err != nil {
			return nil, err
		}
		config.GetClientCertificate = f.pair
	}
	return config, nil
}

// pair reads our own certificate, for each connection again: one that was renewed meanwhile is found.
func (f Files) pair(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: cert and key: %w", ErrTLS, err)
	}
	return &pair, nil
}

// Refusal returns what TLS refused in an error of connecting, as an [ErrTLS]; nil when that is not why. It is for
// the first connection: one that comes back finds a server whose certificate is perhaps being renewed.
func Refusal(err error) error {
	if errors.Is(err, ErrTLS) {
		return err
	}
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		name         x509.HostnameError
		invalid      x509.CertificateInvalidError
		header       tls.RecordHeaderError
	)
	why := alert(err)
	switch {
	case why != nil:
	case errors.As(err, &verification):
		why = verification
	case errors.As(err, &authority): // Of those who verify by themselves.
		why = authority
	case errors.As(err, &name):
		why = name
	case errors.As(err, &invalid):
		why = invalid
	case errors.As(err, &header): // The other side does not speak TLS.
		why = header
	default:
		return nil
	}
	return fmt.Errorf("%w: %w", ErrTLS, why)
}

// alert returns the alert in an error by which the other side says that it will not have us, or nil. It is known by
// its text: its type is not exported, and not every client keeps the error.
func alert(err error) error {
	if err == nil {
		return nil
	}
	for _, number := range lasting() {
		if text := "remote error: " + number.Error(); strings.Contains(err.Error(), text) {
			return errors.New(text)
		}
	}
	return nil
}

// lasting are those alerts, by their numbers in RFC 8446; the longer of two texts first.
func lasting() []tls.AlertError {
	const (
		handshakeFailure       = 40
		badCertificate         = 42
		unsupportedCertificate = 43
		revoked                = 44
		expired                = 45
		unknown                = 46
		unknownAuthority       = 48
		accessDenied           = 49
		protocolVersion        = 70
		insufficientSecurity   = 71
		certificateRequired    = 116
	)
	return []tls.AlertError{
		handshakeFailure, badCertificate, unsupportedCertificate, revoked, expired, unknownAuthority, unknown,
		accessDenied, protocolVersion, insufficientSecurity, certificateRequired,
	}
}
