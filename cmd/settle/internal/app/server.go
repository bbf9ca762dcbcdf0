package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// server is an HTTP server with its listener.
type server struct {
	name     string
	http     *http.Server
	listener net.Listener
	ended    chan struct{} // nil until it answers, closed when it does not any more
	err      error         // why
}

// listen opens a listener, so that an address is known, and refused, before anything starts.
func listen(ctx context.Context, name, addr string) (*server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &server{name: name, listener: l, http: &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}}, nil
}

func (s *server) url() string { return "http://" + s.listener.Addr().String() }

// start answers requests from now on.
func (s *server) start() {
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		s.err = s.http.Serve(s.listener)
	}()
}

// close ends a server that does not serve: it was only started, or not even that.
func (s *server) close() {
	if s.ended == nil {
		_ = s.listener.Close()
		return
	}
	_ = s.http.Close() // One that served has closed all of it.
	<-s.ended
}

// serve answers requests until ctx is done and those in progress are answered.
func (s *server) serve(ctx context.Context) error {
	if s.ended == nil {
		s.start()
	}
	select {
	case <-s.ended:
		return s.err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.http.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain: %w", err), s.http.Close())
	}
	return nil
}

// readSecret reads the secret of a file that was named, or else of the usual one, which is made when it is
// missing. A file that was named is never made: whoever else has the secret would not have this one.
func readSecret(named, usual string, fresh func() string) (string, error) {
	if named == "" {
		return secretFile(usual, fresh)
	}
	b, err := os.ReadFile(named)
	if err != nil {
		return "", usage("%v", err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", usage("%s is empty", named)
	}
	return s, nil
}

// secretFile reads a secret that only this user may read, or makes one. Of several processes that make it at
// once, one wins and the others read what it wrote.
func secretFile(path string, fresh func() string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if s := strings.TrimSpace(string(b)); s != "" {
			return s, nil
		}
		return "", usage("%s is empty: delete it, or fill it", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // Readable by this user only.
	if err != nil {
		return "", err
	}
	s := fresh()
	_, err = f.WriteString(s + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), path)
	}
	err = errors.Join(ifNot(err, os.ErrExist), os.Remove(f.Name()))
	if err != nil {
		return "", err
	}
	b, err = os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// ifNot returns err unless it is the expected one.
func ifNot(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func randomToken() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails.
	return hex.EncodeToString(b[:])
}
