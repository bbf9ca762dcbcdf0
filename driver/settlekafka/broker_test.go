package settlekafka

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/broker/brokertest"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

// quiet drops what the clients say: tests provoke it.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// prefix keeps a test's topics and groups to itself on a server that is shared.
func prefix() string { return "t" + strings.ToLower(rand.Text()[:8]) + "." }

func open(tb testing.TB, url string, cfg Config) *Broker {
	tb.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := Open(ctx, url, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func TestBroker(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		return harness(t, url, Config{Prefix: prefix(), Partitions: 3, Wait: 50 * time.Millisecond})
	})
}

// TestBrokerWithTransactions runs the suite with a transaction for each call of Publish.
func TestBrokerWithTransactions(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		h := harness(t, url, Config{Prefix: prefix(), Partitions: 3, Wait: 50 * time.Millisecond, TransactionalID: "shard-0"})
		expire, reopen := h.Expire, h.Reopen
		h.Expire = func(t *testing.T, n int) { expire(t, 2*n) } // a mark follows each message
		h.Reopen = func(t *testing.T) broker.Broker { return marked{asOurs(t, reopen(t))} }
		h.Broker = marked{asOurs(t, h.Broker)}
		return h
	})
}

func harness(t *testing.T, url string, cfg Config) brokertest.Harness {
	t.Helper()
	b := open(t, url, cfg)
	return brokertest.Harness{
		Broker: b, Partitions: 3, DataBytesMax: event.DataBytesMax + headerRoom,
		Reopen: func(t *testing.T) broker.Broker {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = open(t, url, cfg)
			return b
		},
		Expire: func(t *testing.T, n int) { expire(t, b, brokertest.Topic, n) },
		Garble: func(t *testing.T, key string) { garble(t, asOurs(t, b), key) },
		Revoke: func(t *testing.T, group string) { evict(t, b, group) },
	}
}

func asOurs(t *testing.T, b broker.Broker) *Broker {
	t.Helper()
	ours, ok := b.(*Broker)
	if !ok {
		t.Fatalf("broker is a %T", b)
	}
	return ours
}

// marked hides the lag of partitions: where there are transactions it counts their marks, which the suite
// does not.
type marked struct{ *Broker }

func (b marked) Subscribe(ctx context.Context, s broker.Subscription) (broker.Membership, error) {
	m, err := b.Broker.Subscribe(ctx, s)
	ours, _ := m.(*membership)
	return markedMembership{ours}, err
}

type markedMembership struct{ *membership }

func (m markedMembership) Next(ctx context.Context) (broker.Partition, error) {
	p, err := m.membership.Next(ctx)
	ours, ok := p.(*partition)
	if !ok {
		return p, err
	}
	return struct {
		broker.Partition
		broker.Seeker
	}{ours, ours}, err
}

// expire drops the first n messages of each log.
func expire(t *testing.T, b *Broker, name string, n int) {
	t.Helper()
	ends, err := b.admin.ListEndOffsets(t.Context(), b.cfg.topicName(name))
	if err != nil {
		t.Fatal(err)
	}
	before := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) {
		before.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: min(int64(n), o.Offset)})
	})
	answers, err := b.admin.DeleteRecords(t.Context(), before)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func garble(t *testing.T, b *Broker, key string) {
	t.Helper()
	record := &kgo.Record{Topic: b.cfg.topicName(brokertest.Topic), Key: []byte(key), Value: []byte("garbled")}
	if err := b.cl.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// evict has the coordinator throw every member out of a group, as it does with one that went silent.
func evict(t *testing.T, b *Broker, group string) {
	t.Helper()
	groups, err := b.admin.DescribeGroups(t.Context(), b.cfg.groupName(group))
	if err != nil {
		t.Fatal(err)
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = b.cfg.groupName(group)
	for _, g := range groups {
		for _, m := range g.Members {
			member := kmsg.NewLeaveGroupRequestMember()
			member.MemberID = m.MemberID
			leave.Members = append(leave.Members, member)
		}
	}
	if _, err := leave.RequestWith(t.Context(), b.cl); err != nil {
		t.Fatal(err)
	}
}
