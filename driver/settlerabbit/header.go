package settlerabbit

import (
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

const (
	// attributePrefix is that of the CloudEvents binding for AMQP, in the form that suits JMS too.
	attributePrefix = "cloudEvents_"
	contentType     = "datacontenttype"
	originHeader    = "settle-origin"
	// fieldOverhead is what a header's field needs beside its name and value.
	fieldOverhead = 6
)

// encode makes a message, and returns how many bytes its headers have, about.
func encode(m *broker.Message) (amqp.Publishing, int) {
	headers := make(amqp.Table, 16)
	p := amqp.Publishing{
		Headers: headers, DeliveryMode: amqp.Persistent, MessageId: m.Event.ID.String(), Type: m.Event.Type, Body: m.Event.Data,
	}
	size := len(p.MessageId) + len(p.Type)
	for name, value := range m.Event.Attributes() {
		if name == contentType {
			p.ContentType = value
		} else {
			name = attributePrefix + name
			headers[name] = value
		}
		size += len(name) + len(value) + fieldOverhead
	}
	if m.Origin != "" {
		headers[originHeader] = m.Origin
		size += len(originHeader) + len(m.Origin) + fieldOverhead
	}
	return p, size
}

// malformedSpace is the name space of identities of messages that have none.
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var malformedSpace = event.ID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 'r', 'a', 'b', 'b', 'i', 't'}

// decode reads a message. One that is not an event gets an identity from its content, as it has no place
// that stays the same: two of the same content are taken for one.
func decode(topic, queue string, d *amqp.Delivery) broker.Message {
	get := func(name string) string {
		if name == contentType {
			return d.ContentType
		}
		value, _ := d.Headers[attributePrefix+name].(string)
		return value
	}
	var m broker.Message
	m.Origin, _ = d.Headers[originHeader].(string)
	m.Event, m.Err = event.FromAttributes(topic, get, d.Body)
	if m.Err == nil {
		return m
	}
	if m.Event.ID.IsZero() {
		m.Event.ID = event.DerivedID(malformedSpace, content(d))
	}
	if m.Event.AggregateID == "" {
		m.Event.AggregateID = d.Exchange + "/" + d.RoutingKey
	}
	m.Err = fmt.Errorf("settlerabbit: message in %s: %w", queue, m.Err)
	return m
}

// content is all of a message that is the same at each delivery and in each group.
func content(d *amqp.Delivery) string {
	parts := []string{d.Exchange, d.RoutingKey, d.MessageId, d.Type, d.ContentType}
	var headers []string
	for name, value := range d.Headers {
		if !strings.HasPrefix(name, "x-") { // Those are the server's own.
			headers = append(headers, fmt.Sprintf("%s=%v", name, value))
		}
	}
	slices.Sort(headers)
	return strings.Join(append(append(parts, headers...), string(d.Body)), "\x00")
}
