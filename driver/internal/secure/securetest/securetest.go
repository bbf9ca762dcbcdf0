// Package securetest is the suite that every driver runs against a real server that talks by TLS and demands a
// certificate of its clients: who is right gets in, and who is not is told so at once, instead of waiting.
//
// # What this package does not do
//
// It starts no server.
package securetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/driver/internal/secure"
)

// Harness is a server and how a driver is opened.
type Harness struct {
	// URL is the server's, with the host 127.0.0.1 for which its certificate is, and not localhost.
	URL string
	// CA, Cert and Key are files: the server's authority, and a certificate that it takes.
	CA, Cert, Key string
	// Names are those of the files in the URL. Default ca, cert and key.
	Names [3]string
	// Open is the driver's.
	Open func(ctx context.Context, url string) (io.Closer, error)
	// Unavailable is the driver's word for what ends by itself.
	Unavailable error
	// Greet says and hears what the protocol has before TLS, on a server's side. Default nothing.
	Greet func(net.Conn) error
	// Missing and Strange are the refusals of who brings no certificate, and a stranger's. Default secure.ErrTLS.
	Missing, Strange error
}

// atOnce is how long a refusal may take, on a busy machine.
const atOnce = 20 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Names == [3]string{} {
		h.Names = [3]string{"ca", "cert", "key"}
	}
	for _, is := range []*error{&h.Missing, &h.Strange} {
		if *is == nil {
			*is = secure.ErrTLS
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := h.Open(ctx, h.with(t, h.URL, h.CA, h.Cert, h.Key))
	if err != nil {
		t.Fatalf("with the right certificates: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	stranger, strangersKey := Pair(t, time.Hour)
	elsewhere := strings.Replace(h.URL, "127.0.0.1", "localhost", 1)
	for name, test := range map[string]struct {
		base, ca, cert, key string
		is                  error
	}{
		"an unknown authority":        {h.URL, stranger, h.Cert, h.Key, secure.ErrTLS},
		"another host":                {elsewhere, h.CA, h.Cert, h.Key, secure.ErrTLS},
		"no such file":                {h.URL, "/nowhere", h.Cert, h.Key, secure.ErrTLS},
		"no such key":                 {h.URL, h.CA, h.Cert, "/nowhere", secure.ErrTLS},
		"no certificate of ours":      {h.URL, h.CA, "", "", h.Missing},
		"the certificate of somebody": {h.URL, h.CA, stranger, strangersKey, h.Strange},
	} {
		h.refused(t, name, h.with(t, test.base, test.ca, test.cert, test.key), test.is)
	}
	for _, reset := range []bool{false, true} {
		h.breaks(t, reset)
	}
}

// breaks wants a connection that ends as soon as it is one by TLS, so without a reason, to be one that is waited for, or
// to be taken for a refusal: an error that is neither would end a service for a passing fault.
func (h Harness) breaks(t *testing.T, reset bool) {
	t.Helper()
	cert, key := Pair(t, time.Hour)
	u, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = h.breaker(t, cert, key, reset)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := h.Open(ctx, h.with(t, u.String(), cert, h.Cert, h.Key))
	if err == nil {
		_ = c.Close()
		t.Errorf("a connection that breaks, by a reset %t: opened", reset)
		return
	}
	t.Logf("a connection that breaks, by a reset %t: %v", reset, err)
	if !errors.Is(err, h.Unavailable) && !errors.Is(err, secure.ErrTLS) {
		t.Errorf("a connection that breaks, by a reset %t: %v, want %q or %q", reset, err, h.Unavailable, secure.ErrTLS)
	}
}

// breaker is a server by TLS that ends each connection once it is one, and returns its address.
func (h Harness) breaker(t *testing.T, cert, key string, reset bool) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	return Listen(t, func(conn net.Conn) {
		if h.Greet != nil {
			if err := h.Greet(conn); err != nil {
				return
			}
		}
		_ = tls.Server(conn, config).HandshakeContext(t.Context())
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
	})
}

// Listen takes connections until the test ends, closes each when serve has returned, and returns its address.
func Listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// refused wants an error at once that nobody waits out. In TLS 1.3 the end of a connection may overtake its reason:
// then it is tried again, as whoever waits for a server does.
func (h Harness) refused(t *testing.T, name, target string, is error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	c, err := h.Open(ctx, target)
	for err != nil && errors.Is(err, h.Unavailable) && time.Since(began) < atOnce {
		t.Logf("%s: tried again after: %v", name, err)
		c, err = h.Open(ctx, target)
	}
	if err == nil {
		_ = c.Close()
		t.Errorf("%s: opened", name)
		return
	}
	t.Logf("%s: %v", name, err)
	if took := time.Since(began); took > atOnce {
		t.Errorf("%s: refused after %s", name, took)
	}
	if !errors.Is(err, is) || errors.Is(err, h.Unavailable) {
		t.Errorf("%s: %v, want %q and not %q", name, err, is, h.Unavailable)
	}
}

// with returns a URL with files; an empty one is left out.
func (h Harness) with(t *testing.T, target string, files ...string) string {
	t.Helper()
	before, query, _ := strings.Cut(target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		if file != "" {
			values.Set(h.Names[i], file)
		}
	}
	return before + "?" + values.Encode()
}

// Pair makes a certificate of 127.0.0.1 that nobody vouches for and that ends after so long, and returns its file and
// that of its key.
func Pair(t *testing.T, lives time.Duration) (cert, key string) {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(lives),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, pair.Public(), pair)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
