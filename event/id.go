package event

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // UUIDv5 is defined over SHA-1 (RFC 9562, 5.5); it names, it does not protect.
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
)

// ID identifies an event: a UUID of version 7 (RFC 9562), or of version 5 when it is derived from
// an idempotency key. The zero ID means none.
type ID [16]byte

// idClock keeps version 7 identities of one process strictly increasing: RFC 9562, 6.2, method 1
// (a counter in rand_a), because an inbox appends cheapest when identities arrive in order.
type idClock struct {
	mu      sync.Mutex
	last    int64
	counter uint16
}

//nolint:gochecknoglobals // The process has one source of time-ordered identities.
var clock idClock

// NewID returns a new time-ordered identity for an event that happened at now.
// Identities of one process increase strictly, also when now stands still or goes back.
func NewID(now time.Time) ID {
	var id ID
	_, _ = rand.Read(id[8:]) // crypto/rand.Read never fails since Go 1.24.
	ms, counter := clock.next(now.UnixMilli())
	binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16|0x7000|uint64(counter))
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (c *idClock) next(ms int64) (int64, uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ms > c.last {
		c.last, c.counter = ms, 0
		return c.last, c.counter
	}
	if c.counter++; c.counter > 0x0fff {
		c.last, c.counter = c.last+1, 0
	}
	return c.last, c.counter
}

// DerivedID returns the version 5 identity of name within space: the same for the same input, for
// ever and in every process.
func DerivedID(space ID, name string) ID {
	h := sha1.New() //nolint:gosec // See the import.
	h.Write(space[:])
	h.Write([]byte(name))
	var id ID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the canonical form, 36 characters in lower or upper case.
func ParseID(s string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return ID{}, err
	}
	return id, nil
}

// IsZero reports whether id is no identity at all.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders identities by their bytes, which is by time for version 7.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// String returns the canonical form in lower case.
func (id ID) String() string {
	var b [36]byte
	id.encode(&b)
	return string(b[:])
}

func (id ID) encode(b *[36]byte) {
	hex.Encode(b[:8], id[:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:], id[10:])
}

// MarshalText returns the canonical form.
func (id ID) MarshalText() ([]byte, error) {
	var b [36]byte
	id.encode(&b)
	return b[:], nil
}

// UnmarshalText reads the canonical form.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return fmt.Errorf("event: identity %.40q is not a UUID of 36 characters", text)
	}
	var digits [32]byte
	copy(digits[:8], text[:8])
	copy(digits[8:12], text[9:13])
	copy(digits[12:16], text[14:18])
	copy(digits[16:20], text[19:23])
	copy(digits[20:], text[24:])
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return fmt.Errorf("event: identity %.40q: %w", text, err)
	}
	return nil
}
