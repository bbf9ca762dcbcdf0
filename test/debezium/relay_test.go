package debezium_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// placement is the event as the library writes it, with the account's number like the others.
type placement struct {
	Account string `json:"account"`
	N       int    `json:"n"`
}

// testRelay moves from Debezium to our relay while writers go on, and back. Programs with the library and
// without write into the same table, and both carriers read all of it: whatever they overlap in are duplicates.
func testRelay(t *testing.T, r *rig) {
	t.Helper()
	x, w := r.consume(), newWritten()
	write := func() {
		t.Helper()
		wait := r.writers(t.Context(), w, 30, time.Millisecond)
		r.libraryWriter(w, 60)
		wait()
	}
	write()
	r.stop()
	write() // Nobody carries these yet.
	stop := r.startRelay()
	write()
	r.check(w, x)
	r.resume() // Its slot has kept what the relay carried.
	write()
	if err := stop(); err != nil {
		t.Errorf("relay: %v", err)
	}
	write()
	r.check(w, x)
}

func (r *rig) startRelay() (stop func() error) {
	r.tb.Helper()
	b, err := settlekafka.Open(r.tb.Context(), r.kafka.URL(), settlekafka.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.tb.Fatal(err)
	}
	carrier, err := relay.New(r.store.Outbox(), b, relay.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.tb.Context()))
	done := make(chan error, 1)
	go func() { done <- carrier.Run(ctx) }()
	return func() error {
		cancel()
		err := <-done
		return errors.Join(err, b.Close())
	}
}

// libraryWriter is a program that uses the library.
func (r *rig) libraryWriter(w *written, transactions int) {
	r.tb.Helper()
	placed := event.Define("OrderPlaced", 1, event.Spec[placement]{
		Topic: r.topic, Aggregate: "order", Key: func(p placement) string { return p.Account },
	})
	for i := range transactions {
		key := fmt.Sprintf("%s käse %d", r.topic, i%7)
		err := r.store.Run(r.tb.Context(), func(ctx context.Context, tx *txn.Tx) error {
			tx.Bind("library", nil)
			tx.AfterCommit(func() { w.add(tx.Events()...) })
			var n int
			if err := tx.QueryRow(ctx, upsert, []any{key}, &n); err != nil {
				return err
			}
			return outbox.Add(ctx, tx, placed.New(placement{Account: key, N: n}))
		})
		if err != nil {
			r.tb.Fatal(err)
		}
	}
}
