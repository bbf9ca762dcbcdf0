package call

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/settledev/settle/retry"
	"github.com/settledev/settle/txn"
)

// Definition is a [Def] of any types.
type Definition interface {
	// Name returns the definition's name.
	Name() string

	limits() (timeout time.Duration, inFlight int, policy retry.Policy)
	perform(ctx context.Context, w *Work) (answer any, err error)
	record(ctx context.Context, tx *txn.Tx, w *Work, answer any, err error) error
}

func (d *Def[Req, Resp]) limits() (timeout time.Duration, inFlight int, policy retry.Policy) {
	return d.spec.Timeout, d.spec.InFlight, d.spec.Retry
}

// perform decodes the request and makes the call. A request that does not decode never will: it is
// recorded as refused.
func (d *Def[Req, Resp]) perform(ctx context.Context, w *Work) (any, error) {
	req, err := d.request(w)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	return d.spec.Do(ctx, w.Key, req)
}

func (d *Def[Req, Resp]) record(ctx context.Context, tx *txn.Tx, w *Work, answer any, outcome error) error {
	o := Outcome[Req, Resp]{Key: w.Key, Err: outcome, Attempts: w.Attempts, Cause: w.Cause}
	o.Request, _ = d.request(w) // When it does not decode, perform has said so in outcome.
	if outcome == nil {
		o.Response, _ = answer.(Resp) // Do's own; a nil interface stays one.
	}
	return d.spec.Record(ctx, tx, o)
}

func (d *Def[Req, Resp]) request(w *Work) (req Req, err error) {
	if err := json.Unmarshal(w.Request, &req); err != nil {
		return req, fmt.Errorf("call: %s: decode request %s: %w", d.name, w.Key, err)
	}
	return req, nil
}

func panicked(p any) error { return fmt.Errorf("panic: %v\n%s", p, debug.Stack()) }

// historiesMax bounds the failing calls whose first failure is remembered.
const historiesMax = 1 << 16

// histories remembers when calls first failed and how often, which their rows do not say: claims that
// waited (retry.After) or died with a process are no failures. A restart begins a call's policy anew: it
// errs on the side of trying.
type histories struct {
	mu sync.Mutex
	by map[string]history
}

type history struct {
	first    time.Time
	failures int
}

// failed counts a failure. claims stands in for the count where there is no memory of the call.
func (s *histories) failed(key string, claims int, now time.Time) (first time.Time, failures int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.by[key]
	switch {
	case ok:
		h.failures++
	case len(s.by) >= historiesMax:
		return now, max(1, claims)
	default:
		h = history{now, 1}
	}
	if s.by == nil {
		s.by = map[string]history{}
	}
	s.by[key] = h
	return h.first, h.failures
}

func (s *histories) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, key)
}
