package settlenats

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

func TestEscapeIsPercentEncoding(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		"order-1/a+b=c":  "order-1/a+b=c",
		"a b":            "a%20b",
		"100%":           "100%25",
		`"quoted"`:       "%22quoted%22",
		"käse":           "k%C3%A4se",
		"line\r\nbreak":  "line%0D%0Abreak",
		"\u00a0☃":        "%C2%A0%E2%98%83",
		"already%20done": "already%2520done",
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
		if got := unescape(want); got != in {
			t.Errorf("unescape(%q) = %q, want %q", want, got, in)
		}
	}
	for in, want := range map[string]string{"%": "%", "%4": "%4", "%zz": "%zz", "%41%": "A%", "a%2": "a%2"} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("käse 100%\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		wire := escape(s)
		if strings.ContainsFunc(wire, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("escape(%q) = %q", s, wire)
		}
		if got := unescape(wire); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
		unescape(s)
	})
}

func FuzzDecode(f *testing.F) {
	e := event.Envelope{
		ID: event.NewID(time.Now()), Type: "OrderCreated", Version: 1, Topic: "order-events",
		AggregateType: "order", AggregateID: "ö-1", OccurredAt: time.Now(), Producer: "order", Data: []byte("{}"),
	}
	f.Add(e.ID.String(), e.Type, "2026-11-21T10:00:00Z", "order/%C3%B6-1", "1", "%C3%B6-1", "{}")
	f.Add("", "", "", "", "", "", "garbled")
	f.Fuzz(func(t *testing.T, id, typ, at, subject, version, key, data string) {
		msg := &nats.Msg{Subject: "settle.order-events.0", Data: []byte(data), Header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-type": {typ}, "ce-time": {at}, "ce-source": {"/order"},
			"ce-subject": {subject}, "ce-dataversion": {version}, "ce-partitionkey": {key}, "empty": {},
		}}
		m := decode("order-events", place{sequence: 7, stored: 9}, msg)
		again := decode("order-events", place{sequence: 7, stored: 9}, msg)
		if m.Event.ID.IsZero() || m.Event.ID != again.Event.ID || m.Event.AggregateID == "" {
			t.Errorf("identity %s and %s, key %q", m.Event.ID, again.Event.ID, m.Event.AggregateID)
		}
		if m.Err != nil && !errors.Is(m.Err, event.ErrMalformed) {
			t.Errorf("error %v", m.Err)
		}
		if m.Err != nil {
			return
		}
		// What was read is written in a form that reads the same.
		wire := newEncoder().encode(msg.Subject, &broker.Message{Event: m.Event})
		back := decode("order-events", place{}, wire)
		if back.Err != nil || back.Event.ID != m.Event.ID || back.Event.AggregateID != m.Event.AggregateID || back.Event.Type != m.Event.Type {
			t.Errorf("%+v came back as %+v", m.Event, back)
		}
	})
}

func TestMalformedIdentityDependsOnTheStoredMessage(t *testing.T) {
	id := func(p place) event.ID {
		return decode("t", p, &nats.Msg{Subject: "settle.t.0", Data: []byte("x")}).Event.ID
	}
	if id(place{sequence: 1, stored: 5}) == id(place{sequence: 1, stored: 6}) {
		t.Error("after a lost tail another message at the same sequence has the same identity")
	}
	if id(place{sequence: 1, stored: 5, delivery: 1}) != id(place{sequence: 1, stored: 5, delivery: 9}) {
		t.Error("a second delivery has another identity")
	}
}

func TestParsePlace(t *testing.T) {
	want := place{sequence: 42, delivery: 7, stored: 1700000000000000000, pending: 3}
	for _, reply := range []string{
		"$JS.ACK.settle_t.consumer.1.42.7.1700000000000000000.3",
		"$JS.ACK.hub.ACCOUNT.settle_t.consumer.1.42.7.1700000000000000000.3",
		"$JS.ACK._.ACCOUNT.settle_t.consumer.1.42.7.1700000000000000000.3.token",
	} {
		if got, ok := parsePlace(reply); !ok || got != want {
			t.Errorf("%s: %+v %v", reply, got, ok)
		}
	}
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.a.b.1.2.3", "$JS.ACK.a.b.1.x.3.4.5", "$JS.ACK.a.b.1.2.3.4.5.6"} {
		if got, ok := parsePlace(reply); ok {
			t.Errorf("%s was taken for %+v", reply, got)
		}
	}
}

func TestParseAck(t *testing.T) {
	var rejected *broker.RejectedError
	for data, check := range map[string]func(a ackResult) bool{
		`{"stream":"settle_t","seq":12}`: func(a ackResult) bool {
			return a.err == nil && a.sequence == 12 && a.stream == "settle_t" && !a.duplicate
		},
		`{"stream":"settle_t","seq":12,"duplicate":true}`: func(a ackResult) bool {
			return a.err == nil && a.sequence == 12 && a.duplicate
		},
		`{"stream":"settle_t", "domain":"hub", "seq":12}`: func(a ackResult) bool { return a.err == nil && a.sequence == 12 },
		`{"type":"io.nats","stream":"s","seq":1}`:         func(a ackResult) bool { return a.err == nil && a.stream == "s" },
		`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream":"s","seq":0}`: func(a ackResult) bool {
			return errors.As(a.err, &rejected)
		},
		`{"error":{"code":503,"err_code":10023,"description":"insufficient resources"},"stream":"s","seq":0}`: unavailableAck,
		`{"stream":"s","seq":0}`: unavailableAck,
		`{"stream":"s`:           unavailableAck,
		`nonsense`:               unavailableAck,
		``:                       func(a ackResult) bool { return a.missing && unavailableAck(a) },
	} {
		if a := parseAck(&nats.Msg{Data: []byte(data)}); !check(a) {
			t.Errorf("%s: %+v", data, a)
		}
	}
}

func unavailableAck(a ackResult) bool { return errors.Is(a.err, broker.ErrUnavailable) }

func FuzzParseAck(f *testing.F) {
	f.Add([]byte(`{"stream":"settle_t","seq":12,"duplicate":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a := parseAck(&nats.Msg{Data: data}); a.err == nil && a.sequence == 0 {
			t.Errorf("%q is acknowledged at 0", data)
		}
	})
}

func TestNamesDoNotMeet(t *testing.T) {
	c := Config{Prefix: "settle"}
	seen := map[string]string{c.lifeStream(): "the incarnation", c.lifeSubject(): "the incarnation"}
	for _, topic := range []string{"a", "a.b", "a-b", "a_b", "a..b", ".a", "a.", "incarnation", "a.0", "0"} {
		for _, name := range []string{c.streamName(topic), c.subject(topic, 0)} {
			if other, ok := seen[name]; ok {
				t.Errorf("%s of %s is that of %s", name, topic, other)
			}
			seen[name] = topic
		}
		if strings.Count(c.subject(topic, 10), ".") != 2 || strings.Contains(c.streamName(topic), ".") {
			t.Errorf("topic %s has subject %s in stream %s", topic, c.subject(topic, 10), c.streamName(topic))
		}
		if got, n := splitPartition(partitionName(topic, 12)); got != topic || n != 12 {
			t.Errorf("partition of %s splits into %s and %d", topic, got, n)
		}
	}
}
