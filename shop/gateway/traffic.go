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
	// Process tells the process that answered from others, for as long as it runs.
	Process string `json:"process"`
}

// instanceGrace is how long an instance that does not answer any more is waited for: what it had in hand
// may not be anybody else's yet (leases and sessions last up to 15 s), and would be missing from the sum. Afterwards its service's other
// instances speak for it.
const instanceGrace = 30 * time.Second

// serveTraffic answers how much is on its way, or that it cannot be known: a part that is away must not
// look quiet.
func (d *desk) serveTraffic(w http.ResponseWriter, r *http.Request) {
	all, err := d.gather(r.Context())
	if err != nil {
		d.fail(w, err)
		return
	}
	answer := TrafficAnswer{Services: all, Process: d.process}
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
	g := gathering{all: maps.Clone(all), said: map[[2]string]bool{}, heard: map[string]bool{}}
	for name := range all {
		g.heard[name], g.said[[2]string{d.process, name}] = true, true
	}
	var wg sync.WaitGroup
	for name, p := range d.peers {
		for _, in := range p.instances {
			wg.Go(func() {
				var answer TrafficAnswer
				err := p.askOne(ctx, in, question{method: http.MethodGet, path: "/internal/stats", token: d.token}, &answer)
				if _, ok := answer.Services[name]; err == nil && !ok {
					err = &UnreachableError{Service: name, Sent: true, Err: errors.New(in.base.String() + " has no such service")}
				}
				g.add(name, in, answer, err)
			})
		}
	}
	wg.Wait()
	for _, name := range slices.Sorted(maps.Keys(d.peers)) {
		if !g.heard[name] {
			g.failed = append(g.failed, &UnreachableError{Service: name, Err: errors.New("no instance answers")})
		}
	}
	return g.all, errors.Join(g.failed...)
}

// gathering is what several processes say of themselves. One that is asked at two addresses counts once.
type gathering struct {
	mu     sync.Mutex
	all    map[string]Traffic
	said   map[[2]string]bool // process and service
	heard  map[string]bool    // service
	failed []error
}

func (g *gathering) add(name string, in *instance, answer TrafficAnswer, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		if time.Since(time.Unix(0, in.seen.Load())) < instanceGrace {
			g.failed = append(g.failed, err)
		}
		return
	}
	in.seen.Store(time.Now().UnixNano())
	of, by := answer.Services[name], [2]string{answer.Process, name}
	if g.said[by] {
		return
	}
	if g.heard[name] {
		of = g.all[name].beside(of)
	}
	g.said[by], g.heard[name], g.all[name] = true, true, of
}
