package faults

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/shop/internal/jsonhttp"
)

// AttemptsMax is how many (operation, reference) pairs a gate remembers the attempts of, at least.
// The pairs take about 5 MB.
const AttemptsMax = 1 << 17

// Codes of the problems that faults answer with.
const (
	CodeDown        = "DOWN"         // 503: the program is switched off
	CodeErrorBefore = "ERROR_BEFORE" // 503: the call had no effect
	CodeErrorAfter  = "ERROR_AFTER"  // 500: the call may have had its effect, and had it
)

// Gate stands between a program's clients and its effects. Use it by many goroutines at once.
type Gate struct {
	transport atomic.Pointer[Transport]
	closed    chan struct{}
	close     sync.Once

	mu       sync.Mutex
	attempts map[uint64]uint64
	older    map[uint64]uint64 // attempts before it was full; bounds what is remembered
}

// NewGate returns a gate with these faults, which the caller has checked.
func NewGate(t Transport) *Gate {
	g := &Gate{closed: make(chan struct{}), attempts: map[uint64]uint64{}}
	g.Set(t)
	return g
}

// Set replaces the faults of calls that have not begun. The caller has checked them.
func (g *Gate) Set(t Transport) { g.transport.Store(&t) }

// Close ends every delay and every silence, so that a server that shuts down need not wait for them.
// It may be called more than once.
func (g *Gate) Close() { g.close.Do(func() { close(g.closed) }) }

// Up answers 503 and returns false while the program is down.
func (g *Gate) Up(w http.ResponseWriter) bool {
	if !g.transport.Load().Down {
		return true
	}
	a := jsonhttp.NewProblem(http.StatusServiceUnavailable, CodeDown, "the program is switched off by a fault").Answer()
	a.RetryAfter = time.Second
	a.Send(w)
	return false
}

// Serve performs one attempt of operation on reference as the faults have it: effect is called once
// or not at all, with a context that outlives the client. The request's body must have been read to
// its end, because only then does the server notice that a client of a silent call has given up.
func (g *Gate) Serve(w http.ResponseWriter, r *http.Request, operation, reference string,
	effect func(context.Context) jsonhttp.Answer,
) {
	ctx := context.WithoutCancel(r.Context())
	t := g.transport.Load()
	if t.calm() {
		effect(ctx).Send(w)
		return
	}
	p := t.plan(operation, reference, g.attempt(operation, reference))
	g.wait(p.delay)
	if p.errorBefore {
		jsonhttp.NewProblem(http.StatusServiceUnavailable, CodeErrorBefore, "%s %s failed by a fault, without effect",
			operation, reference).Answer().Send(w)
		return
	}
	if p.silent && !p.effect {
		g.silence(r)
	}
	a := effect(ctx)
	if p.silent {
		g.silence(r)
	}
	if p.errorAfterIt {
		a = jsonhttp.NewProblem(http.StatusInternalServerError, CodeErrorAfter, "%s %s failed by a fault, its outcome is unknown",
			operation, reference).Answer()
	}
	a.Send(w)
}

// wait blocks for d. It doesn't end with the client, because a call that arrived is carried out, and
// the effect after the client's timeout is the one that a client must be right about.
func (g *Gate) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.closed:
	}
}

// silence blocks until the client gives up or the gate is closed, and then aborts the connection: to
// return would be to answer 200.
func (g *Gate) silence(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-g.closed:
	}
	panic(http.ErrAbortHandler)
}

// attempt counts an attempt and returns its number, from 1.
func (g *Gate) attempt(operation, reference string) uint64 {
	key := mix(0, 0, operation, reference)
	g.mu.Lock()
	defer g.mu.Unlock()
	n, ok := g.attempts[key]
	if !ok {
		n = g.older[key]
		if len(g.attempts) >= AttemptsMax {
			g.attempts, g.older = make(map[uint64]uint64), g.attempts
		}
	}
	g.attempts[key] = n + 1
	return n + 1
}
