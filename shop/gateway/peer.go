package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/settledev/settle/shop/problem"
)

// Bounds of what a peer is asked.
const (
	peerDialTimeout   = 2 * time.Second
	peerTimeout       = 30 * time.Second
	peerBodyBytesMax  = 1 << 20
	answerBytesMax    = 64 << 20
	peerRetryAfter    = time.Second
	instancesMax      = 64
	peerIdleConnsMax  = 256
	problemDetailsMax = 64 << 10
	// A process that ends says so for a while (serve --drain-delay, half a second) before it stops to listen: a
	// request that is sent just then is lost, and nobody can tell whether it was read. So it is asked last for
	// endingFor, and we close idle connections before it does.
	endingFor       = 2 * time.Second
	peerIdleTimeout = 250 * time.Millisecond
)

// Peer is a service that runs in other processes, in one instance or in several. As an
// [http.RoundTripper] it sends a request to one of them, whatever host the request names: to the next one
// when nothing has been sent, and when the request may be repeated.
type Peer struct {
	service   string
	instances []*instance
	turn      atomic.Uint32
	transport http.RoundTripper
}

// instance is one process that has the service.
type instance struct {
	base *url.URL
	seen atomic.Int64 // when it last told of itself, in Unix nanoseconds
	ends atomic.Int64 // when it last said that it ends
}

var _ http.RoundTripper = (*Peer)(nil)

// NewPeer returns the peer of a service at the base URLs of its instances.
func NewPeer(service string, urls []string) (*Peer, error) {
	if len(urls) == 0 || len(urls) > instancesMax {
		return nil, fmt.Errorf("gateway: peer %s has %d instances: 1 to %d allowed", service, len(urls), instancesMax)
	}
	p := &Peer{service: service, transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: peerDialTimeout}).DialContext,
		ResponseHeaderTimeout: peerTimeout, IdleConnTimeout: peerIdleTimeout,
		MaxIdleConns: peerIdleConnsMax, MaxIdleConnsPerHost: peerIdleConnsMax,
	}}
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("gateway: peer %s: %.200q is no address such as http://host:8101", service, text)
		}
		p.instances = append(p.instances, &instance{base: &url.URL{Scheme: u.Scheme, Host: u.Host}})
	}
	return p, nil
}

// RoundTrip implements [http.RoundTripper]. Its error is an [*UnreachableError].
func (p *Peer) RoundTrip(r *http.Request) (*http.Response, error) {
	var last *UnreachableError
	for i, in := range p.turns() {
		again, err := repeated(r, i)
		if err != nil {
			return nil, err
		}
		resp, err := p.send(again, in)
		if err == nil && (!repeatable(r) || !away(resp.StatusCode) || i == len(p.instances)-1) {
			return resp, nil
		}
		if err == nil {
			err = errors.Join(fmt.Errorf("%s answered %d", in.base, resp.StatusCode), resp.Body.Close())
		}
		last = &UnreachableError{Service: p.service, Sent: sent(err), Err: err}
		if r.Context().Err() != nil || last.Sent && !repeatable(r) || r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
			break
		}
	}
	return nil, last
}

// turns returns the instances in the order in which they are asked: in turn, and those that end after the others, the
// last to say so last: the first may be back already.
func (p *Peer) turns() []*instance {
	first := int(p.turn.Add(1))
	all := make([]*instance, 0, len(p.instances))
	var ending []*instance
	for i := range p.instances {
		in := p.instances[(first+i)%len(p.instances)]
		if time.Since(time.Unix(0, in.ends.Load())) < endingFor {
			ending = append(ending, in)
			continue
		}
		all = append(all, in)
	}
	slices.SortFunc(ending, func(a, b *instance) int { return cmp.Compare(a.ends.Load(), b.ends.Load()) })
	return append(all, ending...)
}

func (p *Peer) send(r *http.Request, in *instance) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host, r.Host = in.base.Scheme, in.base.Host, in.base.Host
	resp, err := p.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch resp.Header.Get(instanceHeader) {
	case instanceStarting:
		return nil, errors.Join(fmt.Errorf("%s: %w", in.base, errStarting), resp.Body.Close())
	case instanceEnding:
		in.ends.Store(time.Now().UnixNano())
	}
	resp.Header.Del(instanceHeader) // It is not about who passes the answer on.
	return resp, nil
}

// repeated returns the request for its n-th attempt, with a body of its own.
func repeated(r *http.Request, n int) (*http.Request, error) {
	c := r.Clone(r.Context())
	if n > 0 && r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		c.Body = body
	}
	return c, nil
}

// repeatable reports whether a request that was sent may be sent again, to another instance: it changes
// nothing, or its key makes its repetition harmless (an empty list of keys, as for net/http, which sends
// none, says that it only reads).
func repeatable(r *http.Request) bool {
	_, keyed := r.Header["Idempotency-Key"]
	return keyed || r.Method == http.MethodGet || r.Method == http.MethodHead
}

// away reports whether a status says that this instance, and not the service, cannot answer.
func away(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// errStarting says that an instance has done nothing yet.
var errStarting = errors.New("the instance is starting")

// sent reports whether a failed request may have had an effect.
func sent(err error) bool {
	if errors.Is(err, errStarting) {
		return false
	}
	e, ok := errors.AsType[*net.OpError](err)
	return !ok || e.Op != "dial"
}

// Handler passes requests on to the service. A service that is away is a problem with Retry-After: 503
// when nothing was sent, 502 when the answer is lost.
func (p *Peer) Handler(log *slog.Logger) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: p,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", p.service
			r.SetXForwarded()
			// The gateway has looked at where the request comes from; another host in it would be refused.
			for _, name := range []string{"Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User"} {
				r.Out.Header.Del(name)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			for _, name := range guarded() { // The gateway says them itself.
				resp.Header.Del(name)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				log.Warn("request could not be passed on", "service", p.service, "method", r.Method, "path", r.URL.Path, "err", err)
			}
			unreachable(err).Send(w)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), peerTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		if err := keepBody(w, r); err != nil {
			problem.Write(w, http.StatusRequestEntityTooLarge, "body-too-large", "The request is too large, or broke off",
				fmt.Sprintf("%d bytes are allowed", peerBodyBytesMax), nil)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// keepBody reads the request's body, so that it can be sent again.
func keepBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, peerBodyBytesMax))
	if err != nil {
		return err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, err = r.GetBody()
	r.ContentLength = int64(len(body))
	return err
}

// unreachable is the answer to a request whose service is away.
func unreachable(err error) *problem.Problem {
	e, ok := errors.AsType[*UnreachableError](err)
	var p *problem.Problem
	switch {
	case ok && !e.Sent:
		p = problem.New(http.StatusServiceUnavailable, "service-unreachable", "A service cannot be reached", "Nothing was done: try again.",
			map[string]any{"service": e.Service})
	case ok:
		p = problem.New(http.StatusBadGateway, "service-broke-off", "A service did not answer to the end",
			"It may have done what was asked: send the same request again, with the same key or reference.", map[string]any{"service": e.Service})
	default:
		p = problem.New(http.StatusBadGateway, "service-broke-off", "A service did not answer to the end", "Send the same request again.", nil)
	}
	p.RetryAfter = peerRetryAfter
	return p
}

// deskHeader marks what a desk asks another one.
const deskHeader = "X-Settle-Desk"

// question is an operator's request to a peer.
type question struct {
	method, path string
	query        url.Values
	token        string
	operator     string
}

// ask sends a question to one instance and decodes its answer. The error is an [*UnreachableError], or the
// [*problem.Problem] that the service answered with.
func (p *Peer) ask(ctx context.Context, q question, answer any) error {
	return p.exchange(ctx, p, q, answer)
}

// askOne is ask for one instance, and for no other.
func (p *Peer) askOne(ctx context.Context, in *instance, q question, answer any) error {
	one := &Peer{service: p.service, instances: []*instance{in}, transport: p.transport}
	return p.exchange(ctx, one, q, answer)
}

func (p *Peer) exchange(ctx context.Context, to *Peer, q question, answer any) (err error) {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, q.method, "http://"+p.service+q.path+"?"+q.query.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+q.token)
	r.Header.Set(deskHeader, "1")
	if q.operator != "" {
		r.Header.Set("X-Operator", q.operator)
	}
	resp, err := to.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return p.refused(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(answer); err != nil {
		return &UnreachableError{Service: p.service, Sent: true, Err: err}
	}
	return nil
}

// refused reads a refusal. What is not the operator's doing counts as a service that is away.
func (p *Peer) refused(resp *http.Response) error {
	var doc struct{ Title, Code, Detail string }
	err := json.NewDecoder(io.LimitReader(resp.Body, problemDetailsMax)).Decode(&doc)
	here := []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict}
	if err != nil || doc.Code == "" || !slices.Contains(here, resp.StatusCode) {
		return &UnreachableError{Service: p.service, Sent: true, Err: fmt.Errorf("it answered %d %s", resp.StatusCode, doc.Code)}
	}
	return problem.New(resp.StatusCode, doc.Code, doc.Title, doc.Detail, nil)
}
