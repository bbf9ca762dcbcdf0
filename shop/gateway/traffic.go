package gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/settledev/settle/shop/page"
)

// Traffic is how much of a service, or of all of them, is on its way.
type Traffic struct {
	Emitted      int64 `json:"emitted"`
	Published    int64 `json:"published"`
	Handled      int64 `json:"handled"`
	Duplicates   int64 `json:"duplicatesIgnored"`
	Parked       int64 `json:"parked"`
	Unpublished  int64 `json:"unpublished"`
	Lag          int64 `json:"lag"`
	CallsPending int64 `json:"callsPending"`
	// Timers and Retrying are work that will still come: deadlines of open orders, events to be tried again.
	Timers   int64 `json:"timers"`
	Retrying int64 `json:"retrying"`
}

// Plus adds another service's traffic.
func (t Traffic) Plus(o Traffic) Traffic {
	t.Emitted += o.Emitted
	t.Published += o.Published
	t.Handled += o.Handled
	t.Duplicates += o.Duplicates
	t.Parked += o.Parked
	t.Unpublished += o.Unpublished
	t.Lag += o.Lag
	t.CallsPending += o.CallsPending
	t.Timers += o.Timers
	t.Retrying += o.Retrying
	return t
}

// beside adds what another instance of the same service says: what its processes count each for
// themselves is added, what they read from their common store is not.
func (t Traffic) beside(o Traffic) Traffic {
	return Traffic{
		Handled: t.Handled + o.Handled, Duplicates: t.Duplicates + o.Duplicates, Lag: t.Lag + o.Lag,
		Emitted: max(t.Emitted, o.Emitted), Published: max(t.Published, o.Published),
		Parked: max(t.Parked, o.Parked), Unpublished: max(t.Unpublished, o.Unpublished),
		CallsPending: max(t.CallsPending, o.CallsPending), Timers: max(t.Timers, o.Timers), Retrying: max(t.Retrying, o.Retrying),
	}
}

// TrafficAnswer is the answer to GET /internal/stats: the sum, and each service.
type TrafficAnswer struct {
	Traffic

	Services map[string]Traffic `json:"services"`
}

// instanceGrace is how long an instance that does not answer any more is waited for: what it had in hand
// may not be anybody else's yet, and would be missing from the sum. Afterwards its service's other
// instances speak for it.
const instanceGrace = 90 * time.Second

// serveTraffic answers how much is on its way, or that it cannot be known: a part that is away must not
// look quiet.
func (d *desk) serveTraffic(w http.ResponseWriter, r *http.Request) {
	all, err := d.gather(r.Context())
	if err != nil {
		d.fail(w, err)
		return
	}
	answer := TrafficAnswer{Services: all}
	for _, t := range all {
		answer.Traffic = answer.Plus(t)
	}
	page.Write(w, http.StatusOK, answer)
}

// gather asks every process.
func (d *desk) gather(ctx context.Context) (map[string]Traffic, error) {
	all, err := d.traffic(ctx)
	if err != nil {
		return nil, err
	}
	all = maps.Clone(all)
	var mu sync.Mutex
	var wg sync.WaitGroup
	heard := map[string]bool{} // those of this process have said theirs
	for name := range all {
		heard[name] = true
	}
	var failed []error
	for name, p := range d.peers {
		for _, in := range p.instances {
			wg.Go(func() {
				var answer TrafficAnswer
				err := p.askOne(ctx, in, question{method: http.MethodGet, path: "/internal/stats", token: d.token}, &answer)
				of, ok := answer.Services[name]
				if err == nil && !ok {
					err = &UnreachableError{Service: name, Sent: true, Err: errors.New(in.base.String() + " has no such service")}
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					if time.Since(time.Unix(0, in.seen.Load())) < instanceGrace {
						failed = append(failed, err)
					}
					return
				}
				in.seen.Store(time.Now().UnixNano())
				if heard[name] {
					of = all[name].beside(of)
				}
				heard[name], all[name] = true, of
			})
		}
	}
	wg.Wait()
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		if !heard[name] {
			failed = append(failed, &UnreachableError{Service: name, Err: errors.New("no instance answers")})
		}
	}
	return all, errors.Join(failed...)
}
