package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/settledev/settle/txn"
)

// Limits of keys and answers.
const (
	KeyBytesMax  = 255
	BodyBytesMax = 64 << 10
)

// RetryAfter is how long a client should wait while the first request of its key runs.
const RetryAfter = time.Second

// Errors of a keyed command.
var (
	// ErrInFlight says that the first request of the key is still running: 409, with Retry-After.
	ErrInFlight = errors.New("a request with this idempotency key is in progress")
	// ErrMismatch says that the key was used for another request: 422.
	ErrMismatch = errors.New("idempotency key was used for another request")
	// ErrKey says that a key is not usable: 400.
	ErrKey = errors.New("idempotency key is not usable")
)

// Request identifies a command. An empty Key means that the client does not want one.
type Request struct {
	Scope       string
	Key         string
	Fingerprint [32]byte
}

// NewRequest reads the Idempotency-Key of an HTTP request. route is the route's pattern, principal who
// asks, body the request's whole body. Two bodies that are the same JSON value have one fingerprint.
func NewRequest(r *http.Request, route, principal string, body []byte) (Request, error) {
	key := strings.TrimSpace(r.Header.Get("Idempotency-Key"))
	if key == "" {
		return Request{}, nil
	}
	// The draft wants a structured-field string; clients in the wild send it bare.
	if len(key) > 1 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if key == "" || len(key) > KeyBytesMax {
		return Request{}, fmt.Errorf("%w: %d bytes, 1 to %d allowed", ErrKey, len(key), KeyBytesMax)
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return Request{}, fmt.Errorf("%w: characters outside printable ASCII", ErrKey)
		}
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(route), []byte(principal), canonical(body)} {
		_, _ = fmt.Fprintf(h, "%d:", len(part))
		_, _ = h.Write(part)
	}
	q := Request{Scope: principal + " " + route, Key: key}
	h.Sum(q.Fingerprint[:0])
	return q, nil
}

// canonical returns one form for all spellings of a JSON value; what is not JSON stays as it is.
func canonical(body []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return body
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return body
	}
	b, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return b
}

// Keeper runs commands under idempotency keys. It is safe for concurrent use.
type Keeper struct {
	run   txn.Runner
	store Store

	mu      sync.Mutex
	running map[[2]string]bool
}

// NewKeeper returns a keeper over the store of the commands' effects.
func NewKeeper(run txn.Runner, store Store) *Keeper {
	return &Keeper{run: run, store: store, running: map[[2]string]bool{}}
}

// Do runs fn in one transaction and keeps its answer there, or returns the first answer of the key.
// fn's error rolls back and is returned, nothing is kept. Errors of the key itself are ErrInFlight and
// ErrMismatch.
func (k *Keeper) Do(ctx context.Context, q Request, fn func(context.Context, *txn.Tx) (Answer, error)) (a Answer, replayed bool, err error) {
	if q.Key == "" {
		err = k.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
			a, err = fn(ctx, tx)
			return err
		})
		return a, false, err
	}
	// The database decides; this only keeps racers of one process from working in vain.
	if !k.begin(q) {
		return Answer{}, false, ErrInFlight
	}
	defer k.end(q)
	if a, ok, err := k.lookup(ctx, q); ok || err != nil {
		return a, ok, err
	}
	err = k.run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		if a, err = fn(ctx, tx); err != nil {
			return err
		}
		if len(a.Body) > BodyBytesMax {
			return fmt.Errorf("idempotency: answer of %d bytes exceeds %d", len(a.Body), BodyBytesMax)
		}
		a.Scope, a.Key, a.Fingerprint, a.SavedAt = q.Scope, q.Key, q.Fingerprint, tx.Now()
		return k.store.Save(ctx, tx, a)
	})
	if errors.Is(err, ErrExists) { // Another process was first: its answer is the answer.
		if a, ok, err := k.lookup(ctx, q); ok || err != nil {
			return a, ok, err
		}
	}
	return a, false, err
}

func (k *Keeper) lookup(ctx context.Context, q Request) (Answer, bool, error) {
	a, ok, err := k.store.Lookup(ctx, q.Scope, q.Key)
	if err != nil || !ok {
		return Answer{}, false, err
	}
	if a.Fingerprint != q.Fingerprint {
		return Answer{}, false, ErrMismatch
	}
	return a, true, nil
}

func (k *Keeper) begin(q Request) bool {
	id := [2]string{q.Scope, q.Key}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running[id] {
		return false
	}
	k.running[id] = true
	return true
}

func (k *Keeper) end(q Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, [2]string{q.Scope, q.Key})
}

// Write sends the answer. A replayed one says so, as Stripe's does.
func (a *Answer) Write(w http.ResponseWriter, replayed bool) {
	for name, value := range a.Header {
		w.Header().Set(name, value)
	}
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body)
}
