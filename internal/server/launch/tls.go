package launch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateFiles are PEM files: of the authority, of the server's certificate and of a client's.
type certificateFiles struct {
	authority, certificate, key, clientCertificate, clientKey string
}

// secure makes the certificates of a server that runs as user, whom the server's files are to be readable for. An
// empty user is root itself.
func (s *Server) secure(user string) (certificateFiles, error) {
	files, err := makeCertificates(s.dir)
	if err != nil {
		return files, err
	}
	s.caFile, s.clientFiles = files.authority, [2]string{files.clientCertificate, files.clientKey}
	return files, errors.Join(own(files.authority, user), own(files.certificate, user), own(files.key, user))
}

// authority signs certificates.
type authority struct {
	of  *x509.Certificate
	key *ecdsa.PrivateKey
}

// makeCertificates makes an authority, a certificate by it for 127.0.0.1, which is not one for localhost, and one for
// a client. Nobody keeps the authority's key.
func makeCertificates(dir string) (certificateFiles, error) {
	files := certificateFiles{
		filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem"),
		filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem"),
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, err
	}
	now := time.Now()
	by := authority{key: key, of: &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "settle tests"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, by.of, by.of, key.Public(), key)
	if err != nil {
		return files, err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		// Nodes of a cluster are one another's clients.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	client := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "settle"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return files, errors.Join(
		writePEM(files.authority, "CERTIFICATE", der),
		by.issue(server, files.certificate, files.key),
		by.issue(client, files.clientCertificate, files.clientKey),
	)
}

// issue writes a certificate and its key.
func (a authority) issue(of *x509.Certificate, name, keyName string) error {
	of.NotBefore, of.NotAfter, of.KeyUsage = a.of.NotBefore, a.of.NotAfter, x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, of, a.of, key.Public(), a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(name, "CERTIFICATE", der), writePEM(keyName, "PRIVATE KEY", secret))
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
