package settlenats

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	originHeader = "settle-origin"
	headersMax   = 20
)

// headerName puts the prefix before an attribute's name; the known ones cost no allocation.
func headerName(attribute string) string {
	switch attribute {
	case "specversion":
		return "ce-specversion"
	case "id":
		return "ce-id"
	case "source":
		return "ce-source"
	case "type":
		return "ce-type"
	case "time":
		return "ce-time"
	case "subject":
		return "ce-subject"
	case "datacontenttype":
		return "ce-datacontenttype"
	case "dataversion":
		return "ce-dataversion"
	case "partitionkey":
		return "ce-partitionkey"
	case "traceparent":
		return "ce-traceparent"
	case "correlationid":
		return "ce-correlationid"
	case "causationid":
		return "ce-causationid"
	case "idempotencykey":
		return "ce-idempotencykey"
	}
	return "ce-" + attribute
}

// encoder makes messages, one after the other, in the same header: publishing copies it.
type encoder struct {
	header nats.Header
	values [headersMax]string
}

func newEncoder() *encoder { return &encoder{header: make(nats.Header, headersMax)} }

func (c *encoder) encode(subject string, m *broker.Message) *nats.Msg {
	clear(c.header)
	n := 0
	set := func(name, value string) {
		if n == headersMax {
			c.header[name] = []string{value} // more attributes than there are today
			return
		}
		c.values[n] = value
		c.header[name] = c.values[n : n+1 : n+1]
		n++
	}
	for name, value := range m.Event.Attributes() {
		set(headerName(name), escape(value))
		if name == "id" {
			set(nats.MsgIdHdr, value)
		}
	}
	if m.Origin != "" {
		set(originHeader, escape(m.Origin))
	}
	return &nats.Msg{Subject: subject, Header: c.header, Data: m.Event.Data}
}

// malformedSpace is the name space of identities of messages that have none.
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var malformedSpace = event.ID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 'n', 'a', 't', 's', 0, 1}

// decode reads a message. One that is not an event gets an identity from its place in the stream: its
// sequence, and the time at which it was stored, as sequences are counted again after a lost tail.
func decode(topic string, at place, msg *nats.Msg) broker.Message {
	get := func(name string) string {
		values := msg.Header[headerName(name)]
		if len(values) == 0 {
			return ""
		}
		return unescape(values[0])
	}
	m := broker.Message{Origin: unescape(msg.Header.Get(originHeader))}
	m.Event, m.Err = event.FromAttributes(topic, get, msg.Data)
	if m.Err == nil {
		return m
	}
	if m.Event.ID.IsZero() {
		name := msg.Subject + "/" + strconv.FormatUint(at.sequence, 10) + "/" + strconv.FormatUint(at.stored, 10)
		m.Event.ID = event.DerivedID(malformedSpace, name)
	}
	if m.Event.AggregateID == "" {
		m.Event.AggregateID = msg.Subject
	}
	m.Err = fmt.Errorf("settlenats: %s message %d: %w", msg.Subject, at.sequence, m.Err)
	return m
}

// place is what the server says about a delivered message, in its reply subject.
type place struct {
	sequence uint64 // in the stream
	delivery uint64 // in the consumer
	stored   uint64 // nanoseconds since 1970
	pending  uint64 // messages after this one
}

// parsePlace reads $JS.ACK.<stream>.<consumer>.<n>.<stream seq>.<consumer seq>.<time>.<pending>, and
// the longer form with domain and account before the stream.
func parsePlace(reply string) (place, bool) {
	if !strings.HasPrefix(reply, "$JS.ACK.") {
		return place{}, false
	}
	skip := 5
	if dots := strings.Count(reply, "."); dots >= 10 {
		skip = 7
	} else if dots != 8 {
		return place{}, false
	}
	for range skip {
		_, reply, _ = strings.Cut(reply, ".")
	}
	var p place
	for _, field := range []*uint64{&p.sequence, &p.delivery, &p.stored, &p.pending} {
		var digits string
		var err error
		digits, reply, _ = strings.Cut(reply, ".")
		if *field, err = strconv.ParseUint(digits, 10, 64); err != nil {
			return place{}, false
		}
	}
	return p, true
}

// escape encodes a header's value as CloudEvents says for HTTP (1.0, section 3.1.3.2): space, quote,
// percent and everything outside printable ASCII as %XX of its UTF-8 bytes.
func escape(s string) string {
	n := 0
	for i := range len(s) {
		if unsafe(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unsafe(c) {
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func unsafe(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

// unescape is the inverse of escape; what is no escape stays as it is.
func unescape(s string) string {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:at]...)
	for i := at; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(v))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
