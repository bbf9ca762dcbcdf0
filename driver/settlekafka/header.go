package settlekafka

import (
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	originHeader = "settle-origin"
	// nanosHeader replaces ce_time, which may be absent, where a carrier can only copy the outbox's columns
	// (Debezium): nanoseconds since 1970, under a name that no reader of CloudEvents takes for a timestamp.
	nanosHeader = "ce_timeunixnano"
	headersMax  = 16
	textBytes   = 448
)

// headerName is where the Kafka binding of CloudEvents puts an attribute: ce_ before its name, but the
// type of the data in content-type. The known ones cost no allocation.
func headerName(attribute string) string {
	switch attribute {
	case "specversion":
		return "ce_specversion"
	case "id":
		return "ce_id"
	case "source":
		return "ce_source"
	case "type":
		return "ce_type"
	case "time":
		return "ce_time"
	case "subject":
		return "ce_subject"
	case "datacontenttype":
		return "content-type"
	case "dataversion":
		return "ce_dataversion"
	case "partitionkey":
		return "ce_partitionkey"
	case "traceparent":
		return "ce_traceparent"
	case "correlationid":
		return "ce_correlationid"
	case "causationid":
		return "ce_causationid"
	case "idempotencykey":
		return "ce_idempotencykey"
	}
	return "ce_" + attribute
}

// encode makes the record of a message. The key is the event's: its hash decides the partition, also in
// foreign producers. The record's time is that of publishing, because retention goes by it.
func encode(topic string, m *broker.Message) *kgo.Record {
	headers := make([]kgo.RecordHeader, 0, headersMax)
	text := make([]byte, 0, textBytes) // all of it in one piece, as long as it fits
	put := func(value string) []byte {
		at := len(text)
		text = append(text, value...)
		return text[at:len(text):len(text)]
	}
	for name, value := range m.Event.Attributes() {
		headers = append(headers, kgo.RecordHeader{Key: headerName(name), Value: put(value)})
	}
	if m.Origin != "" {
		headers = append(headers, kgo.RecordHeader{Key: originHeader, Value: put(m.Origin)})
	}
	data := m.Event.Data
	if data == nil {
		data = []byte{} // No value at all would be a tombstone, which compaction takes as a deletion.
	}
	return &kgo.Record{Topic: topic, Key: put(m.Event.AggregateID), Value: data, Headers: headers}
}

// batchSize is what a record takes as the only one of its batch, as the broker counts it and the client
// does, who adds the four bytes in front.
func batchSize(r *kgo.Record) int {
	n := 3 // attributes, and no difference to the batch's time and offset
	n += varintSize(len(r.Key)) + len(r.Key) + varintSize(len(r.Value)) + len(r.Value) + varintSize(len(r.Headers))
	for _, h := range r.Headers {
		n += varintSize(len(h.Key)) + len(h.Key) + varintSize(len(h.Value)) + len(h.Value)
	}
	const overhead = 61 + 4
	return overhead + varintSize(n) + n
}

// varintSize is the length of a number that is not negative, in the signed form that records use.
func varintSize(n int) int {
	size := 1
	for v := uint64(n) << 1; v >= 0x80; v >>= 7 {
		size++
	}
	return size
}

// malformedSpace is the name space of identities of messages that have none.
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var malformedSpace = event.ID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 'k', 'a', 'f', 'k', 'a', 1}

// decode reads a record. One that is not an event gets an identity from its place, which no other record
// ever has: an incarnation is one life of a topic.
func decode(topic, incarnation string, r *kgo.Record) broker.Message {
	get := func(attribute string) string {
		if value, ok := header(r, headerName(attribute)); ok {
			return value
		}
		switch attribute {
		case "partitionkey":
			return string(r.Key) // As the binding has it, also without the attribute.
		case "time":
			return timeOfNanos(r)
		}
		return ""
	}
	m := broker.Message{Position: broker.Position{Incarnation: incarnation, Offset: uint64(r.Offset) + 1}}
	m.Origin, _ = header(r, originHeader)
	m.Event, m.Err = event.FromAttributes(topic, get, r.Value)
	if m.Err == nil {
		return m
	}
	place := partitionName(topic, r.Partition)
	if m.Event.ID.IsZero() {
		m.Event.ID = event.DerivedID(malformedSpace, incarnation+"/"+place+"/"+strconv.FormatInt(r.Offset, 10))
	}
	if m.Event.AggregateID == "" {
		m.Event.AggregateID = place
	}
	m.Err = fmt.Errorf("settlekafka: %s offset %d: %w", place, r.Offset, m.Err)
	return m
}

// header returns the first header of a name.
func header(r *kgo.Record, name string) (string, bool) {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value), true
		}
	}
	return "", false
}

// timeOfNanos returns the time that nanosHeader gives. What is no number is returned as it is, for the
// error to show.
func timeOfNanos(r *kgo.Record) string {
	text, _ := header(r, nanosHeader)
	nanos, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return text
	}
	return time.Unix(0, nanos).UTC().Format(time.RFC3339Nano)
}

// partitionName is the name within a group's subscription.
func partitionName(topic string, partition int32) string {
	return "kafka:" + topic + "/" + strconv.Itoa(int(partition))
}
