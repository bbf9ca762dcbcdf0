// Package retry says how often and when to try again, and lets a handler decide otherwise.
//
// A handler's error is its outcome: an ordinary error retries by the [Policy], [Permanent] parks at
// once, [After] waits without counting an attempt.
package retry

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Policy is exponential backoff within a total time. The zero Policy is the default one.
type Policy struct {
	// Initial is the wait after the first failure. Default 1s.
	Initial time.Duration
	// Multiplier is applied for each further failure. Default 2.
	Multiplier float64
	// WaitMax caps a wait. Default 60s.
	WaitMax time.Duration
	// TotalMax ends the retries: no attempt begins later than this after the first failure.
	// Default 5m.
	TotalMax time.Duration
	// Jitter spreads each wait by up to this fraction in both directions. Default 0.2. See NoJitter.
	Jitter float64
	// NoJitter turns jitter off.
	NoJitter bool
	// Forever turns TotalMax off.
	Forever bool
}

// WithDefaults returns the policy with every zero replaced, or an error that names a contradiction.
func (p Policy) WithDefaults() (Policy, error) {
	if p.Initial == 0 {
		p.Initial = time.Second
	}
	if p.Multiplier == 0 {
		p.Multiplier = 2
	}
	if p.WaitMax == 0 {
		p.WaitMax = time.Minute
	}
	if p.TotalMax == 0 {
		p.TotalMax = 5 * time.Minute
	}
	if p.Jitter == 0 {
		p.Jitter = 0.2
	}
	if p.NoJitter {
		p.Jitter = 0
	}
	switch {
	case p.Initial < 0 || p.WaitMax < p.Initial:
		return p, fmt.Errorf("retry: initial wait %s must lie between 0 and the longest wait %s", p.Initial, p.WaitMax)
	case p.Multiplier < 1:
		return p, fmt.Errorf("retry: multiplier %g is below 1", p.Multiplier)
	case p.Jitter < 0 || p.Jitter >= 1:
		return p, fmt.Errorf("retry: jitter %g must be at least 0 and below 1", p.Jitter)
	case p.TotalMax < 0:
		return p, fmt.Errorf("retry: total time %s is negative", p.TotalMax)
	}
	return p, nil
}

// Wait returns how long to wait after attempt number attempt (from 1) has failed, without regard to
// TotalMax. Call it on a policy with defaults.
func (p Policy) Wait(attempt int) time.Duration {
	wait := float64(p.Initial) * math.Pow(p.Multiplier, float64(attempt-1))
	wait = min(wait, float64(p.WaitMax))
	if p.Jitter > 0 {
		wait *= 1 + p.Jitter*(2*rand.Float64()-1)
	}
	return time.Duration(wait)
}

// Next returns when to try again after attempt (from 1) failed at now, the first failure having been
// at first; ok is false when the policy is exhausted. Call it on a policy with defaults.
func (p Policy) Next(attempt int, first, now time.Time) (at time.Time, ok bool) {
	at = now.Add(p.Wait(attempt))
	return at, p.Forever || !at.After(first.Add(p.TotalMax))
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err as one that no retry mends. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err was marked by [Permanent].
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type afterError struct {
	err  error
	wait time.Duration
}

func (e *afterError) Error() string { return fmt.Sprintf("%v (again in %s)", e.err, e.wait) }
func (e *afterError) Unwrap() error { return e.err }

// After asks for another attempt in wait, which uses up nothing of the policy: for something that is
// known to come, such as a rate limit's end. err says what is waited for; After with a nil err is nil.
func After(wait time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &afterError{err, wait}
}

// IsAfter returns the wait that err asks for.
func IsAfter(err error) (time.Duration, bool) {
	if a, ok := errors.AsType[*afterError](err); ok {
		return a.wait, true
	}
	return 0, false
}
