package settlekafka

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// TestRecordIsCloudEvent pins the wire: attributes as the Kafka binding of CloudEvents 1.0 names them.
func TestRecordIsCloudEvent(t *testing.T) {
	m := oneMessage("käse 100%", `{"n":1}`)
	m.Event.OccurredAt = time.Date(2026, 11, 21, 10, 0, 0, 5, time.UTC)
	m.Event.CorrelationID = "c-1"
	r := encode("order-events", &m)
	want := map[string]string{
		"ce_specversion": "1.0", "ce_id": m.Event.ID.String(), "ce_source": "/order", "ce_type": "OrderPlaced",
		"ce_time": "2026-11-21T10:00:00.000000005Z", "ce_subject": "order/käse 100%", "content-type": "application/json",
		"ce_dataversion": "1", "ce_partitionkey": "käse 100%", "ce_correlationid": "c-1", "settle-origin": "0.0.1",
	}
	for _, h := range r.Headers {
		if want[h.Key] != string(h.Value) {
			t.Errorf("header %s is %q, want %q", h.Key, h.Value, want[h.Key])
		}
		delete(want, h.Key)
	}
	if len(want) > 0 {
		t.Errorf("headers %v are missing", want)
	}
	if string(r.Key) != "käse 100%" || string(r.Value) != `{"n":1}` || r.Topic != "order-events" || !r.Timestamp.IsZero() {
		t.Errorf("record %+v", r)
	}
	m.Event.Data = nil
	if r := encode("t", &m); r.Value == nil {
		t.Error("an event without data is a tombstone")
	}
}

// TestPartitionIsJavas compares with what the producer of Kafka itself computes, for keys that its own
// tests have.
func TestPartitionIsJavas(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		for _, n := range []int{1, 3, 8, 100} {
			p := kgo.StickyKeyPartitioner(nil).ForTopic("t")
			got := p.Partition(&kgo.Record{Key: []byte(key)}, n)
			if want := int(hash&0x7fffffff) % n; got != want {
				t.Errorf("partition of %q among %d is %d, want %d", key, n, got, want)
			}
		}
	}
}

func TestMalformedIdentityIsThatOfThePlace(t *testing.T) {
	id := func(incarnation string, partition int32, offset int64) event.ID {
		m := decode("t", incarnation, &kgo.Record{Topic: "x.t", Partition: partition, Offset: offset, Value: []byte("garbled")})
		if !errors.Is(m.Err, event.ErrMalformed) || m.Event.AggregateID != "kafka:t/"+string('0'+partition) {
			t.Errorf("%+v", m)
		}
		return m.Event.ID
	}
	one := id("c.1", 0, 7)
	if one.IsZero() || one != id("c.1", 0, 7) {
		t.Error("a second delivery has another identity")
	}
	if one == id("c.2", 0, 7) || one == id("c.1", 1, 7) || one == id("c.1", 0, 8) {
		t.Error("another message has the same identity")
	}
}

// TestForeignKeyIsTheEvents has a producer that leaves the attribute to the record's key.
func TestForeignKeyIsTheEvents(t *testing.T) {
	m := oneMessage("key", "{}")
	r := encode("t", &m)
	for i := range r.Headers {
		if r.Headers[i].Key == "ce_partitionkey" {
			r.Headers[i].Key = "other"
		}
	}
	if got := decode("t", "c.1", r); got.Err != nil || got.Event.AggregateID != "key" {
		t.Errorf("%+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("01936b5e-0000-7000-8000-000000000000", "OrderPlaced", "2026-11-21T10:00:00Z", "order/ö-1", "1", "ö-1", "key", "{}")
	f.Add("", "", "", "", "", "", "", "garbled")
	f.Fuzz(func(t *testing.T, id, typ, at, subject, version, partitionKey, key, data string) {
		r := &kgo.Record{Key: []byte(key), Value: []byte(data), Offset: 6}
		for name, value := range map[string]string{
			"ce_specversion": "1.0", "ce_id": id, "ce_type": typ, "ce_time": at, "ce_source": "/order",
			"ce_subject": subject, "ce_dataversion": version, "ce_partitionkey": partitionKey, "": "",
		} {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
		m, again := decode("order-events", "c.1", r), decode("order-events", "c.1", r)
		if m.Event.ID.IsZero() || m.Event.ID != again.Event.ID || m.Event.AggregateID == "" || m.Position.Offset != 7 {
			t.Errorf("%+v and %+v", m, again)
		}
		if m.Err != nil {
			if !errors.Is(m.Err, event.ErrMalformed) {
				t.Errorf("error %v", m.Err)
			}
			return
		}
		// What was read is written in a form that reads the same.
		wire := encode("order-events", &broker.Message{Event: m.Event})
		back := decode("order-events", "c.1", wire)
		if back.Err != nil || back.Event.ID != m.Event.ID || back.Event.AggregateID != m.Event.AggregateID || back.Event.Type != m.Event.Type {
			t.Errorf("%+v came back as %+v", m.Event, back)
		}
	})
}
