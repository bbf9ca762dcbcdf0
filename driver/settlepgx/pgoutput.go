package settlepgx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// lsn is a place in the write-ahead log.
type lsn uint64

// String returns Postgres' own form, such as 16/B374D848.
func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

func parseLSN(s string) (lsn, error) {
	var hi, lo uint32
	if _, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); err != nil {
		return 0, fmt.Errorf("log position %.40q: %w", s, err)
	}
	return lsn(hi)<<32 | lsn(lo), nil
}

// errWire says that a message is not what the protocol promises.
var errWire = errors.New("malformed replication message")

// wire reads big-endian values. After the first that is missing everything is zero and bad is set.
type wire struct {
	b   []byte
	bad bool
}

func (w *wire) bytes(n int) []byte {
	if n < 0 || n > len(w.b) {
		w.b, w.bad = nil, true
		return nil
	}
	head := w.b[:n]
	w.b = w.b[n:]
	return head
}

func (w *wire) uint8() byte {
	if b := w.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *wire) uint16() uint16 {
	if b := w.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *wire) uint32() uint32 {
	if b := w.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *wire) uint64() uint64 {
	if b := w.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (w *wire) text() string {
	for i, c := range w.b {
		if c == 0 {
			s := string(w.b[:i])
			w.b = w.b[i+1:]
			return s
		}
	}
	w.b, w.bad = nil, true
	return ""
}

// relation is a table as the stream announces it before its first row.
type relation struct {
	schema, name string
	columns      []string
}

// value is one column of a row. Its bytes are the message's own.
type value struct {
	kind byte // 'n' null, 't' text, 'b' binary, 'u' unchanged
	data []byte
}

// row is what was inserted, by column.
type row struct {
	table  *relation
	values []value
}

func (r *row) column(name string) (value, bool) {
	for i, c := range r.table.columns {
		if c == name && i < len(r.values) {
			return r.values[i], true
		}
	}
	return value{}, false
}

// decoder reads pgoutput, version 1 of its protocol, see "Logical Replication Message Formats" in the
// documentation of PostgreSQL. It keeps the tables that were announced.
type decoder struct {
	tables map[uint32]*relation
}

// message is the part of a message that we use. kind is 0 for one that concerns nobody here.
type message struct {
	kind   byte
	at     lsn // of 'B' and 'C': where the commit stands
	end    lsn // of 'C': behind it
	insert row // of 'I'
}

func (d *decoder) decode(b []byte) (message, error) {
	w := wire{b: b}
	var m message
	switch kind := w.uint8(); kind {
	case 'B':
		m.kind, m.at = kind, lsn(w.uint64())
	case 'C':
		w.uint8() // flags, unused
		m.kind, m.at, m.end = kind, lsn(w.uint64()), lsn(w.uint64())
	case 'R':
		d.relation(&w)
	case 'I':
		id := w.uint32()
		t := d.tables[id]
		if t == nil {
			return m, fmt.Errorf("row of table %d, which was not announced: %w", id, errWire)
		}
		if w.uint8() != 'N' {
			return m, fmt.Errorf("row of %s without its values: %w", t.name, errWire)
		}
		m.kind, m.insert = kind, row{table: t, values: tuple(&w)}
	default:
		// Types, origins, truncations and logical messages concern nobody here.
	}
	if w.bad {
		return m, fmt.Errorf("message %q of %d bytes: %w", b[:min(1, len(b))], len(b), errWire)
	}
	return m, nil
}

func (d *decoder) relation(w *wire) {
	id := w.uint32()
	r := &relation{schema: w.text(), name: w.text()}
	w.uint8() // replica identity
	for range w.uint16() {
		w.uint8() // part of the key
		r.columns = append(r.columns, w.text())
		w.uint32() // type
		w.uint32() // its modifier
		if w.bad {
			return
		}
	}
	if d.tables == nil {
		d.tables = map[uint32]*relation{}
	}
	d.tables[id] = r
}

func tuple(w *wire) []value {
	n := int(w.uint16())
	values := make([]value, 0, min(n, 64))
	for range n {
		v := value{kind: w.uint8()}
		switch v.kind {
		case 't', 'b':
			v.data = w.bytes(int(w.uint32()))
		case 'n', 'u':
		default:
			w.bad = true
		}
		if w.bad {
			return nil
		}
		values = append(values, v)
	}
	return values
}

// integer reads a column of type smallint, integer or bigint.
func (v value) integer() (int64, error) {
	switch {
	case v.kind == 't':
		return strconv.ParseInt(string(v.data), 10, 64)
	case v.kind == 'b' && len(v.data) == 2:
		return int64(int16(binary.BigEndian.Uint16(v.data))), nil
	case v.kind == 'b' && len(v.data) == 4:
		return int64(int32(binary.BigEndian.Uint32(v.data))), nil
	case v.kind == 'b' && len(v.data) == 8:
		return int64(binary.BigEndian.Uint64(v.data)), nil
	}
	return 0, fmt.Errorf("no integer in a value of kind %q, %d bytes: %w", v.kind, len(v.data), errWire)
}
