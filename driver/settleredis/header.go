package settleredis

import (
	"fmt"
	"strings"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/event"
)

// Fields of an entry beside the attributes of its event.
const (
	dataField   = "data"
	originField = "origin"
)

// encode appends an entry's fields to args, and returns how many bytes they have. The order is the same
// for every event: Redis stores the names once for entries that stand together and agree on them.
func encode(args []any, m *broker.Message) ([]any, int) {
	size := 0
	set := func(name, value string) {
		args = append(args, name, value)
		size += len(name) + len(value)
	}
	for name, value := range m.Event.Attributes() {
		set(name, value)
	}
	if m.Origin != "" {
		set(originField, m.Origin)
	}
	args = append(args, dataField, m.Event.Data)
	return args, size + len(dataField) + len(m.Event.Data)
}

// malformedSpace is the name space of identities of messages that have none.
//
//nolint:gochecknoglobals // An array constant, which Go does not have.
var malformedSpace = event.ID{0x5e, 0x77, 0x1e, 0x00, 0x00, 0x00, 0x50, 0x00, 0x80, 0x00, 'r', 'e', 'd', 'i', 's', 1}

// decode reads an entry's fields, names and values in turn. One that is not an event gets an identity from
// its place and content: offsets are counted again after a lost tail.
func decode(log string, offset uint64, fields []string) broker.Message {
	get := func(name string) string {
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == name {
				return fields[i+1]
			}
		}
		return ""
	}
	m := broker.Message{Origin: get(originField)}
	var data []byte
	if d := get(dataField); d != "" {
		data = []byte(d)
	}
	m.Event, m.Err = event.FromAttributes(topicOf(log), get, data)
	if m.Err == nil {
		return m
	}
	if m.Event.ID.IsZero() {
		m.Event.ID = event.DerivedID(malformedSpace, fmt.Sprintf("%s %d %s", log, offset, strings.Join(fields, "\x00")))
	}
	if m.Event.AggregateID == "" {
		m.Event.AggregateID = log
	}
	m.Err = fmt.Errorf("settleredis: %s message %d: %w", log, offset, m.Err)
	return m
}

// entry is what Redis answers for one message.
type entry struct {
	offset uint64
	fields []string // nil when the message was deleted while it was pending
	bytes  int
}

// parseEntries reads the answer of XREADGROUP for one stream.
func parseEntries(answer any) ([]entry, error) {
	streams, _ := answer.([]any)
	if len(streams) != 1 {
		return nil, fmt.Errorf("answer for %d streams, asked for one", len(streams))
	}
	stream, _ := streams[0].([]any)
	if len(stream) != 2 {
		return nil, fmt.Errorf("stream of %d parts, 2 expected", len(stream))
	}
	list, _ := stream[1].([]any)
	entries := make([]entry, 0, len(list))
	var all []string // of all entries, in one piece of memory
	for _, one := range list {
		pair, _ := one.([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("entry of %d parts, 2 expected", len(pair))
		}
		id, _ := pair[0].(string)
		offset, ok := parseID(id)
		if !ok {
			return nil, fmt.Errorf("entry %.40q was not put there by this package", id)
		}
		e := entry{offset: offset}
		if values, _ := pair[1].([]any); values != nil {
			if cap(all)-len(all) < len(values) {
				all = make([]string, 0, max(len(values), 16*len(list)))
			}
			start := len(all)
			for _, v := range values {
				s, _ := v.(string)
				all = append(all, s)
				e.bytes += len(s)
			}
			e.fields = all[start:len(all):len(all)]
		}
		entries = append(entries, e)
	}
	return entries, nil
}
