package faults

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"time"
)

// DelayMax bounds every duration of a fault.
const DelayMax = 24 * time.Hour

// Duration is a [time.Duration] that is written as text, "250ms", in JSON and in flags
// ([flag.TextVar]).
type Duration time.Duration

// MarshalText returns the duration as [time.Duration.String] does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what [time.ParseDuration] does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	*d = Duration(v)
	return nil
}

// Check refuses a duration below 0 or above [DelayMax]; name says which one it is.
func (d Duration) Check(name string) error {
	if d < 0 || time.Duration(d) > DelayMax {
		return fmt.Errorf("faults: %s %s must lie between 0s and %s", name, time.Duration(d), DelayMax)
	}
	return nil
}

// Latency is a log-normal distribution of delays. The zero Latency delays nothing. The longest delay
// is the 99.99th percentile.
type Latency struct {
	Min    Duration `json:"min"`
	Median Duration `json:"median"`
	P99    Duration `json:"p99"`
}

// Check refuses a distribution that no numbers can have.
func (l Latency) Check() error {
	switch {
	case l.Min < 0 || l.Median < l.Min || l.P99 < l.Median:
		return fmt.Errorf("faults: latency min %s, median %s, p99 %s must rise from 0s",
			time.Duration(l.Min), time.Duration(l.Median), time.Duration(l.P99))
	case l.Median == l.Min && l.P99 > l.Median:
		return fmt.Errorf("faults: latency median %s must exceed min %s when p99 %s exceeds it",
			time.Duration(l.Median), time.Duration(l.Min), time.Duration(l.P99))
	}
	return l.P99.Check("latency p99")
}

// zAt99 is the 99th percentile of the standard normal distribution.
const zAt99 = 2.3263478740408408

// at returns the delay at the quantile q, in [0, 1).
func (l Latency) at(q float64) time.Duration {
	if l.P99 == l.Min {
		return time.Duration(l.Min)
	}
	z := math.Sqrt2 * math.Erfinv(2*min(max(q, 0.0001), 0.9999)-1)
	scale := float64(l.Median - l.Min)
	sigma := math.Log(float64(l.P99-l.Min)/scale) / zAt99
	return time.Duration(l.Min) + time.Duration(scale*math.Exp(sigma*z))
}

// Transport is what can go wrong between a client and any program. The zero Transport is one where
// nothing does. Percentages lie between 0 and 100.
type Transport struct {
	// Seed decides whom the percentages hit.
	Seed uint64 `json:"seed"`
	// Down answers everything with 503.
	Down bool `json:"down"`
	// Latency is waited for before the effect, also when the client has given up meanwhile.
	Latency Latency `json:"latency"`
	// SilencePercent of the calls get no answer, until the client gives up. Half of them have their
	// effect.
	SilencePercent float64 `json:"silencePercent"`
	// ErrorBeforePercent of the calls get 503 and have no effect.
	ErrorBeforePercent float64 `json:"errorBeforePercent"`
	// ErrorAfterPercent of the calls get 500 and have their effect.
	ErrorAfterPercent float64 `json:"errorAfterPercent"`
}

// Check refuses a percentage or a latency that is out of range.
func (t Transport) Check() error {
	for _, p := range []struct {
		name  string
		value float64
	}{
		{"silencePercent", t.SilencePercent},
		{"errorBeforePercent", t.ErrorBeforePercent},
		{"errorAfterPercent", t.ErrorAfterPercent},
	} {
		if err := CheckPercent(p.name, p.value); err != nil {
			return err
		}
	}
	return t.Latency.Check()
}

// calm reports that no call needs a plan.
func (t Transport) calm() bool {
	return t.Latency == Latency{} && t.SilencePercent == 0 && t.ErrorBeforePercent == 0 && t.ErrorAfterPercent == 0
}

// plan is what happens to one attempt.
type plan struct {
	delay                     time.Duration
	silent, effect            bool // effect is meant only when silent
	errorBefore, errorAfterIt bool
}

func (t Transport) plan(operation, reference string, attempt uint64) plan {
	q := func(what string) float64 { return quantile(t.Seed, attempt, what, operation, reference) }
	return plan{
		delay:        t.Latency.at(q("latency")),
		silent:       hits(t.SilencePercent, q("silence")),
		effect:       hits(50, q("silent effect")),
		errorBefore:  hits(t.ErrorBeforePercent, q("error before")),
		errorAfterIt: hits(t.ErrorAfterPercent, q("error after")),
	}
}

// CheckPercent refuses a percentage outside 0 to 100; name says which one it is.
func CheckPercent(name string, p float64) error {
	if !(p >= 0 && p <= 100) { // Written so that NaN is refused.
		return fmt.Errorf("faults: %s %g must lie between 0 and 100", name, p)
	}
	return nil
}

// Hit reports whether percent of all references are to have the fault named what and reference is
// one of them. The answer is the same however often it is asked, and raising percent only adds
// references.
func Hit(seed uint64, percent float64, what, reference string) bool {
	return hits(percent, quantile(seed, 0, what, reference))
}

func hits(percent, q float64) bool { return q*100 < percent }

// quantile returns a number in [0, 1) that is uniform over everything it is given.
func quantile(seed, attempt uint64, parts ...string) float64 {
	return float64(mix(seed, attempt, parts...)>>11) / (1 << 53)
}

// mix hashes to the same value in every process, as hash/maphash does not.
func mix(seed, attempt uint64, parts ...string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	for _, n := range []uint64{seed, attempt} {
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	for _, p := range parts {
		binary.LittleEndian.PutUint64(b[:], uint64(len(p)))
		h.Write(b[:])
		h.Write([]byte(p))
	}
	// FNV's high bits hardly depend on the last bytes; the finalizer of SplitMix64 spreads them.
	x := h.Sum64()
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}
