package event

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Errors of decoding. Both are permanent: the same event fails again until the code changes, so a
// consumer parks it and nothing is lost.
var (
	// ErrUnknownType says that an envelope is not of the definition that was asked to decode it.
	ErrUnknownType = errors.New("unknown event type")
	// ErrUnknownVersion says that no upcaster leads from the envelope's version to the known one.
	ErrUnknownVersion = errors.New("unknown event version")
)

// Upcaster turns data of one version into data of the next. It is pure.
type Upcaster func(data []byte) ([]byte, error)

// Spec is what a definition says beside name and version.
type Spec[T any] struct {
	// Topic is the log the event travels on. Required.
	Topic string
	// Aggregate is the type of the aggregate that owns the event. Required.
	Aggregate string
	// Key returns the aggregate's id. Required.
	Key func(T) string
	// Upcasters lead old versions on: the entry for n makes data of version n+1 from version n.
	// A version without an entry on its way to the current one is refused with ErrUnknownVersion.
	Upcasters map[int]Upcaster
}

// Type is the definition of an event whose data is a T. The zero Type is not usable; see [Define].
type Type[T any] struct {
	name    string
	version int
	spec    Spec[T]
}

// Of is a decoded event: its envelope, and its data as a T.
type Of[T any] struct {
	Envelope

	Data T
}

// Draft is an event that has no identity yet. Make one with [Type.New]; a draft whose data could
// not be encoded carries that error until it is added.
type Draft struct {
	Type           string
	Version        int
	Topic          string
	AggregateType  string
	AggregateID    string
	IdempotencyKey string
	Data           []byte
	Err            error
}

// Define returns the definition of an event. It panics when name, topic, aggregate or a version is
// not usable, as that is a mistake in the program: definitions are made once, at start.
func Define[T any](name string, version int, spec Spec[T]) Type[T] {
	for _, s := range []string{name, spec.Topic, spec.Aggregate} {
		if err := CheckName(s); err != nil {
			panic(fmt.Sprintf("event: define %q: %v", name, err))
		}
	}
	if version < 1 || spec.Key == nil {
		panic(fmt.Sprintf("event: define %q: needs a version from 1 and a key", name))
	}
	for from := range spec.Upcasters {
		if from < 1 || from >= version {
			panic(fmt.Sprintf("event: define %q: upcaster from version %d cannot lead to %d", name, from, version))
		}
	}
	return Type[T]{name: name, version: version, spec: spec}
}

// Name returns the event's type name.
func (t Type[T]) Name() string { return t.name }

// Version returns the current version, the one that New writes.
func (t Type[T]) Version() int { return t.version }

// Topic returns the log that events of this type travel on.
func (t Type[T]) Topic() string { return t.spec.Topic }

// New drafts an event. Add it to a transaction with outbox.Add.
func (t Type[T]) New(data T) Draft {
	d := Draft{
		Type: t.name, Version: t.version, Topic: t.spec.Topic,
		AggregateType: t.spec.Aggregate, AggregateID: t.spec.Key(data),
	}
	d.Data, d.Err = json.Marshal(data)
	if d.Err != nil {
		d.Err = fmt.Errorf("event: encode %s: %w", t.name, d.Err)
	}
	return d
}

// Once drafts an event whose identity is derived from key: added twice, in one transaction or in
// many, it is one event to every consumer.
func (t Type[T]) Once(key string, data T) Draft {
	d := t.New(data)
	d.IdempotencyKey = key
	return d
}

// Decode returns the typed event, upcast to the current version. Its errors wrap ErrUnknownType,
// ErrUnknownVersion, or say that the data is no such JSON.
func (t Type[T]) Decode(e Envelope) (Of[T], error) {
	of := Of[T]{Envelope: e}
	if e.Type != t.name {
		return of, fmt.Errorf("event: decode %s as %s: %w", e.Type, t.name, ErrUnknownType)
	}
	data := e.Data
	for v := e.Version; v != t.version; v++ {
		up := t.spec.Upcasters[v]
		if up == nil {
			return of, fmt.Errorf("event: decode %s version %d, this program knows %d: %w", e.Type, e.Version, t.version, ErrUnknownVersion)
		}
		var err error
		if data, err = up(data); err != nil {
			return of, fmt.Errorf("event: upcast %s from version %d: %w", e.Type, v, err)
		}
	}
	if err := json.Unmarshal(data, &of.Data); err != nil {
		return of, fmt.Errorf("event: decode %s version %d: %w", e.Type, e.Version, err)
	}
	return of, nil
}
