package test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/shop/inventory"
	"github.com/settledev/settle/shop/payment"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/shipping"
	"github.com/settledev/settle/sqlstore"
)

// benchmark publishes a draft for each of b.N orders and waits until the service has emitted as many events
// as want for each.
func benchmark(b *testing.B, store *sqlstore.Store, br *memory.Broker, svc runs, draft func(id string) event.Draft, want int) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	messages := make([]broker.Message, b.N)
	for i := range messages {
		e, err := draft(fmt.Sprint("order-", i)).Seal("test", time.Now(), event.Cause{})
		if err != nil {
			b.Fatal(err)
		}
		messages[i] = broker.Message{Event: e, Origin: "test"}
	}
	done := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { done <- svc.Run(ctx) }()
	for batch := range slices.Chunk(messages, broker.PublishMax) {
		if err := errors.Join(br.Publish(ctx, batch)...); err != nil {
			b.Fatal(err)
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		var n int
		if err := store.QueryRow(ctx, "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'settle_outbox'), 0)", nil, &n); err != nil {
			b.Fatal(err)
		}
		if n >= want*b.N {
			break
		}
	}
	b.StopTimer()
	stop()
	if err := <-done; err != nil {
		b.Error(err)
	}
	if err := store.Close(); err != nil {
		b.Error(err)
	}
}

func benchStore(b *testing.B, schema sqlstore.Schema) *sqlstore.Store {
	b.Helper()
	store, err := settlesqlite.Open(b.Context(), filepath.Join(b.TempDir(), "service.db"), settlesqlite.Config{
		Migrate: true, Store: sqlstore.Config{Schemas: []sqlstore.Schema{schema}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return store
}

// BenchmarkInventoryReserve reserves orders of eight lines.
func BenchmarkInventoryReserve(b *testing.B) {
	store, br := benchStore(b, sqlstore.Schema{Name: "inventory", Files: inventory.Migrations("sqlite")}), memory.NewBroker(memory.BrokerConfig{})
	svc := made(inventory.New(store, br, inventory.Config{}))
	initial := map[string]int64{}
	var texts []string
	for i := range 8 {
		product := fmt.Sprint(10001 + i)
		initial[product] = 1 << 40
		texts = append(texts, product+" x2")
	}
	if err := svc.Seed(b.Context(), initial); err != nil {
		b.Fatal(err)
	}
	benchmark(b, store, br, svc, func(id string) event.Draft { return reserve(id, texts...) }, 2)
}

// BenchmarkPaymentAuthorize authorizes orders at a gateway of HTTP and SQLite, whose cost is part of it.
func BenchmarkPaymentAuthorize(b *testing.B) {
	ledger := benchStore(b, sqlstore.Schema{Name: "payment", Files: payment.Migrations("sqlite")})
	if err := pgsim.Migrate(b.Context(), ledger); err != nil {
		b.Fatal(err)
	}
	gateway, err := pgsim.New(ledger, pgsim.Config{})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(http.Handler(gateway))
	defer server.Close()
	store, br := benchStore(b, sqlstore.Schema{Name: "payment", Files: payment.Migrations("sqlite")}), memory.NewBroker(memory.BrokerConfig{})
	svc := made(payment.New(store, br, payment.Config{GatewayURL: server.URL}))
	benchmark(b, store, br, svc, request, 1)
	if err := ledger.Close(); err != nil {
		b.Error(err)
	}
}

// BenchmarkShippingShip ships orders.
func BenchmarkShippingShip(b *testing.B) {
	store, br := benchStore(b, sqlstore.Schema{Name: "shipping", Files: shipping.Migrations("sqlite")}), memory.NewBroker(memory.BrokerConfig{})
	benchmark(b, store, br, made(shipping.New(store, br, shipping.Config{})), paid, 1)
}
