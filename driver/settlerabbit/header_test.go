package settlerabbit

import (
	"errors"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/event"
)

// TestMalformedHasOneIdentity tells that an identity follows from what stays the same at each delivery.
func TestMalformedHasOneIdentity(t *testing.T) {
	base := amqp.Delivery{Exchange: "p/t", RoutingKey: "1", Body: []byte("garbled"), Headers: amqp.Table{"a": "b", "n": int32(1)}}
	first := decode("t", "q", &base)
	if !errors.Is(first.Err, event.ErrMalformed) || first.Event.ID.IsZero() || first.Event.AggregateID != "p/t/1" {
		t.Fatalf("got %+v", first)
	}
	again := base
	again.Headers = amqp.Table{"n": int32(1), "a": "b", "x-delivery-count": int64(3)}
	again.DeliveryTag, again.Redelivered = 17, true
	if got := decode("t", "other queue", &again); got.Event.ID != first.Event.ID {
		t.Errorf("identity %s at the second delivery, %s at the first", got.Event.ID, first.Event.ID)
	}
	other := base
	other.Body = []byte("garbled too")
	if got := decode("t", "q", &other); got.Event.ID == first.Event.ID {
		t.Error("two messages have one identity")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("cloudEvents_id", "01a1fd8c-697b-74cd-aae4-ab39c784b37a", "application/json", []byte(`{}`))
	f.Fuzz(func(t *testing.T, name, value, content string, body []byte) {
		m := oneMessage("key", 1)
		p, _ := encode(&m)
		p.Headers[name] = value
		d := amqp.Delivery{Headers: p.Headers, ContentType: content, Body: body}
		if got := decode("t", "q", &d); got.Event.ID.IsZero() || got.Err != nil && got.Event.AggregateID == "" {
			t.Errorf("got %+v", got)
		}
	})
}
