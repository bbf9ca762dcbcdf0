package settlekafka

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/consumer"
	"github.com/settledev/settle/event"
	"github.com/settledev/settle/internal/server"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/relay"
	"github.com/settledev/settle/txn"
)

// TestKilledBroker kills the broker for seconds under the real relay, twice.
func TestKilledBroker(t *testing.T) {
	for name, id := range map[string]string{"idempotent": "", "transactional": "shard-0"} {
		t.Run(name, func(t *testing.T) {
			own := server.Start(t, server.Kafka, server.Options{})
			b := open(t, own.URL(), Config{Partitions: 4, AckWait: time.Second, SessionTimeout: 2 * time.Second, TransactionalID: id})
			read := collect(t, b, orders)
			r := startRelay(t, b, relay.Config{PublishTimeout: 2 * time.Second, DrainTimeout: 30 * time.Second, RetryMax: 500 * time.Millisecond})
			r.addSome(t, 500)
			read.await(t, 500, 30*time.Second)
			for i := range 2 {
				own.Kill()
				r.addSome(t, 500)
				_ = pause(t.Context(), 3*time.Second)
				own.Restart()
				r.addSome(t, 500)
				read.await(t, 500+1000*(i+1), time.Minute)
			}
			r.sameOrder(t, read)
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.outages < 2 || len(r.parked) > 0 {
				t.Errorf("%d outages, %d events parked; want 2 and none", r.outages, len(r.parked))
			}
			t.Logf("%d outages, %d messages for %d events", r.outages, read.total, len(read.seen))
		})
	}
}

// TestKilledNodes kills the nodes of a cluster one after the other, leaders among them.
func TestKilledNodes(t *testing.T) {
	own := server.Start(t, server.KafkaCluster, server.Options{})
	b := open(t, own.URL(), Config{Partitions: 6, Replication: 3, SessionTimeout: 3 * time.Second})
	read := collect(t, b, orders)
	r := startRelay(t, b, relay.Config{RetryMax: 500 * time.Millisecond})
	r.addSome(t, 200)
	read.await(t, 200, 30*time.Second)
	for i := range 2 {
		own.KillNode(i)
		r.addSome(t, 200)
		read.await(t, 200*(2*i+2), time.Minute) // without the node
		own.RestartNode(i)
		r.addSome(t, 200)
		read.await(t, 200*(2*i+3), time.Minute)
	}
	r.sameOrder(t, read)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.parked) > 0 {
		t.Errorf("%d events parked", len(r.parked))
	}
	t.Logf("%d outages, %d messages for %d events", r.outages, read.total, len(read.seen))
}

// TestCloseWithoutBroker leaves while nobody is there to be told.
func TestCloseWithoutBroker(t *testing.T) {
	own := server.Start(t, server.Kafka, server.Options{})
	b := open(t, own.URL(), Config{Partitions: 1, AckWait: time.Second})
	publish(t, b, oneMessage("a", "0"))
	p := next(t, subscribe(t, b, "group", orders))
	at := fetchSome(t, p)[0].Position
	own.Kill()
	if err := p.Ack(t.Context(), at); err != nil && !errors.Is(err, broker.ErrRevoked) {
		t.Error(err)
	}
	began := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	t.Log("closing took", took)
	if took > 20*time.Second {
		t.Errorf("closing took %s", took)
	}
}

// TestSilentBroker stops the broker's process, so that nothing is refused and nothing answered.
func TestSilentBroker(t *testing.T) {
	own := server.Start(t, server.Kafka, server.Options{})
	b := open(t, own.URL(), Config{Partitions: 1, AckWait: time.Second, SessionTimeout: 30 * time.Second})
	publish(t, b, oneMessage("a", "0"))
	p := next(t, subscribe(t, b, "group", orders))
	fetchSome(t, p)
	var messages []broker.Message
	for i := range 20 {
		messages = append(messages, oneMessage("a", fmt.Sprint(i+1)))
	}
	own.Pause()
	for range 2 {
		began := time.Now()
		for i, err := range b.Publish(t.Context(), messages) {
			if !errors.Is(err, broker.ErrUnavailable) {
				t.Fatalf("message %d: %v, want ErrUnavailable", i, err)
			}
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Fatalf("publish took %s", took)
		}
	}
	own.Resume()
	publishPatiently(t, b, messages...)
	last := oneMessage("a", "last")
	publish(t, b, last)
	seen := map[event.ID]bool{}
	var order []event.ID
	for !seen[last.Event.ID] {
		for _, m := range fetchSome(t, p) {
			if !seen[m.Event.ID] {
				order = append(order, m.Event.ID)
			}
			seen[m.Event.ID] = true
		}
	}
	for i, m := range append(messages, last) {
		if i >= len(order) || order[i] != m.Event.ID {
			t.Fatalf("first appearance %d is another message", i)
		}
	}
	expectNone(t, p, 3*time.Second) // Nothing of the calls that were given up comes later.
}

// TestReaderSurvivesRestart has a reader lose the broker, which may cost it the partition as well.
func TestReaderSurvivesRestart(t *testing.T) {
	own := server.Start(t, server.Kafka, server.Options{})
	b := open(t, own.URL(), Config{Partitions: 1, AckWait: time.Second, SessionTimeout: time.Minute})
	publish(t, b, oneMessage("a", "0"))
	m := subscribe(t, b, "group", orders)
	p := next(t, m)
	at := fetchSome(t, p)[0].Position
	own.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	for err == nil {
		_, err = p.Fetch(ctx, 10)
	}
	if !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrRevoked) {
		t.Fatalf("fetch without a broker: %v, want ErrUnavailable or ErrRevoked", err)
	}
	t.Log(err)
	own.Restart()
	one := oneMessage("a", "1")
	publishPatiently(t, b, one)
	if p.isRevoked() {
		p = next(t, m)
		if err := p.Seek(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, p, one)
}

// TestOversizeParksOnlyItsKey has the relay carry a message that the topic does not take.
func TestOversizeParksOnlyItsKey(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	publish(t, b, oneMessage("before", "0"))
	setSizeMax(t, b, 2000)
	b.forget(orders)
	oversizeParks(t, b)
}

// TestLoweredLimitParksOnlyItsKey has the topic take less than it did when it was asked, so that the
// broker refuses whole batches.
func TestLoweredLimitParksOnlyItsKey(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	publish(t, b, oneMessage("before", "0"))
	setSizeMax(t, b, 2000)
	oversizeParks(t, b)
}

func setSizeMax(t *testing.T, b *Broker, n int) {
	t.Helper()
	changes := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: new(fmt.Sprint(n))}}
	answers, err := b.admin.AlterTopicConfigs(t.Context(), changes, b.cfg.topicName(orders))
	if err == nil {
		_, err = answers.On(b.cfg.topicName(orders), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = pause(t.Context(), 200*time.Millisecond) // until the broker goes by it
}

func incompressible(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(rand.Text())
	}
	return b.String()[:n]
}

func oversizeParks(t *testing.T, b *Broker) {
	t.Helper()
	read := collect(t, b, orders)
	r := startRelay(t, b, relay.Config{})
	giant := incompressible(3000)
	for i := range 30 {
		r.add(t, fmt.Sprintf("k%d", i%5), fmt.Sprint(i))
	}
	r.add(t, "k1", giant)
	for i := range 300 {
		r.add(t, fmt.Sprintf("k%d", i%5), fmt.Sprint(i+30))
	}
	read.await(t, 1+30+300-60, 30*time.Second)
	_ = pause(t.Context(), 500*time.Millisecond)
	r.mu.Lock()
	parked := len(r.parked)
	r.written["k1"] = r.written["k1"][:6]
	r.mu.Unlock()
	if parked != 61 {
		t.Errorf("%d events parked, want the giant and the 60 behind it", parked)
	}
	r.sameOrder(t, read)
}

func TestRefusedMessageHoldsBackItsKey(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	publish(t, b, oneMessage("before", "0"))
	setSizeMax(t, b, 2000)
	giant := oneMessage("a", incompressible(3000))
	errs := b.Publish(t.Context(), []broker.Message{oneMessage("a", "1"), oneMessage("b", "1"), giant, oneMessage("a", "3"), oneMessage("b", "2")})
	for i, want := range []bool{false, false, true, true, false} {
		_, rejected := errors.AsType[*broker.RejectedError](errs[i])
		if rejected != want || !want && errs[i] != nil {
			t.Errorf("message %d: %v", i, errs[i])
		}
	}
}

// TestSizeBoundary publishes messages that are just as large as the topic takes, and one byte larger.
func TestSizeBoundary(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	m := oneMessage("key", "")
	for _, size := range []int{event.DataBytesMax + headerRoom, 1000} {
		publish(t, b, oneMessage("before", ""))
		setSizeMax(t, b, size)
		b.forget(orders)
		m.Event.Data = make([]byte, size-batchSize(encode(orders, &m)))
		for batchSize(encode(orders, &m)) > size {
			m.Event.Data = m.Event.Data[1:] // the lengths take more bytes now
		}
		publish(t, b, m)
		m.Event.Data = append(m.Event.Data, 'x')
		if err := b.Publish(t.Context(), []broker.Message{m})[0]; !isRejected(err) {
			t.Errorf("one byte more than %d: %v, want a RejectedError", size, err)
		}
		m.Event.Data = nil
	}
}

func isRejected(err error) bool {
	_, rejected := errors.AsType[*broker.RejectedError](err)
	return rejected
}

func TestMissingTopic(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), NoCreateTopics: true})
	err := b.Publish(t.Context(), []broker.Message{oneMessage("a", "1")})[0]
	if !isRejected(err) || !errors.Is(err, ErrNoTopic) || !strings.Contains(err.Error(), orders) {
		t.Errorf("publish: %v, want a RejectedError that names the topic", err)
	}
	_, err = b.Subscribe(t.Context(), broker.Subscription{Group: "g", Topics: []string{orders}})
	if !errors.Is(err, ErrNoTopic) || errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), orders) {
		t.Errorf("subscribe: %v, want ErrNoTopic", err)
	}
	if _, err := b.admin.CreateTopic(t.Context(), 1, 1, nil, b.cfg.topicName(orders)); err != nil {
		t.Fatal(err)
	}
	m := oneMessage("a", "1")
	publish(t, b, m)
	expect(t, next(t, subscribe(t, b, "g", orders)), m)
}

// TestTopicMadeAnew deletes a topic under a publisher and a reader. What is published then is read, from
// its start, in another incarnation.
func TestTopicMadeAnew(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1, Wait: 50 * time.Millisecond})
	publish(t, b, oneMessage("a", "0"), oneMessage("a", "1"))
	m := subscribe(t, b, "group", orders)
	p := next(t, m)
	got := fetchSome(t, p)
	before := got[len(got)-1].Position
	if _, err := b.admin.DeleteTopic(t.Context(), b.cfg.topicName(orders)); err != nil {
		t.Fatal(err)
	}
	one := oneMessage("a", "2")
	publishPatiently(t, b, one)
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	for revoked := false; !revoked; {
		select {
		case <-p.Revoked():
			revoked = true
		case <-timer.C:
			t.Fatal("the partition of the topic that was deleted is still ours")
		default:
			_, _ = p.Fetch(t.Context(), 10)
		}
	}
	p = next(t, m)
	if err := p.Seek(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	got = fetchSome(t, p)
	if got[0].Event.ID != one.Event.ID || got[0].Position.Incarnation == before.Incarnation {
		t.Fatalf("got %s at %s, before it was %s", got[0].Event.Data, got[0].Position, before)
	}
}

func TestPositionPastTheEndIsLost(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	m := oneMessage("a", "0")
	publish(t, b, m)
	p := next(t, subscribe(t, b, "group", orders))
	at := fetchSome(t, p)[0].Position
	at.Offset += 5
	if err := p.Seek(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fetch(t.Context(), 10); !errors.Is(err, broker.ErrPositionLost) {
		t.Fatalf("fetch past the end: %v, want ErrPositionLost", err)
	}
	if err := p.Seek(t.Context(), broker.Position{}); err != nil {
		t.Fatal(err)
	}
	expect(t, p, m)
}

// TestRetentionOvertakesReader drops messages that an open partition has not read yet.
func TestRetentionOvertakesReader(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1, Wait: 50 * time.Millisecond})
	publish(t, b, oneMessage("a", "0"))
	p := next(t, subscribe(t, b, "group", orders))
	fetchSome(t, p)
	// Leave it out of the fetches, as when its consumer is slow.
	p.session.reader.PauseFetchPartitions(map[string][]int32{p.at.topic: {0}})
	_ = pause(t.Context(), 200*time.Millisecond)
	for i := range 9 {
		publish(t, b, oneMessage("a", fmt.Sprint(i+1)))
	}
	expire(t, b, orders, 5)
	p.session.reader.ResumeFetchPartitions(map[string][]int32{p.at.topic: {0}})
	for {
		got, err := p.Fetch(t.Context(), 10)
		if len(got) > 0 {
			t.Fatalf("got %s after the gap, without a word", got[0].Event.Data)
		}
		if errors.Is(err, broker.ErrPositionLost) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestZombieIsFenced has two publishers share a transactional id, as before and after a failover.
func TestZombieIsFenced(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	cfg := Config{Prefix: prefix(), Partitions: 1, TransactionalID: "relay-0", Wait: 50 * time.Millisecond}
	old, young := open(t, url, cfg), open(t, url, cfg)
	first, second, zombie, third := oneMessage("a", "1"), oneMessage("a", "2"), oneMessage("a", "zombie"), oneMessage("a", "3")
	publish(t, old, first)
	publish(t, young, second)
	err := old.Publish(t.Context(), []broker.Message{zombie})[0]
	if !errors.Is(err, ErrFenced) || !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("zombie: %v, want ErrFenced and ErrUnavailable", err)
	}
	p := next(t, subscribe(t, young, "group", orders))
	expect(t, p, first, second)
	publish(t, young, third)
	expect(t, p, third)
	// Who still owns the shard takes the id back.
	fourth := oneMessage("a", "4")
	publish(t, old, fourth)
	expect(t, p, fourth)
	if err := young.Publish(t.Context(), []broker.Message{zombie})[0]; !errors.Is(err, ErrFenced) {
		t.Fatalf("zombie: %v, want ErrFenced", err)
	}
	expectNone(t, p, time.Second)
}

// TestFencedCallsDoNotTakeTheIDBack has calls wait behind the one that meets the fence.
func TestFencedCallsDoNotTakeTheIDBack(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	cfg := Config{Prefix: prefix(), Partitions: 1, TransactionalID: "relay-0"}
	old, young := open(t, url, cfg), open(t, url, cfg)
	publish(t, old, oneMessage("a", "1"))
	publish(t, young, oneMessage("a", "2"))
	old.txn.mu.Lock()
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for range 4 {
		wg.Go(func() { errs <- old.Publish(t.Context(), []broker.Message{oneMessage("a", "zombie")})[0] })
	}
	_ = pause(t.Context(), 200*time.Millisecond) // all of them have begun
	old.txn.mu.Unlock()
	wg.Wait()
	for range 4 {
		if err := <-errs; !errors.Is(err, ErrFenced) {
			t.Errorf("call of an ownership that has ended: %v, want ErrFenced", err)
		}
	}
	publish(t, young, oneMessage("a", "3"))
}

// TestRebalanceInMidBatch has a second consumer join while the first handles a batch, and leave again.
func TestRebalanceInMidBatch(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 4, SessionTimeout: 2 * time.Second, Wait: 50 * time.Millisecond})
	store := memory.New()
	var mu sync.Mutex
	effects := map[string][]string{}
	run := func(delay time.Duration) (stop func()) {
		c, err := consumer.New(store, store, b, consumer.Config{
			Group: "billing", Topics: []string{orders}, BatchMax: 20, Logger: quiet(),
			Handlers: map[string]consumer.Handler{"OrderPlaced": func(_ context.Context, tx *txn.Tx, e event.Envelope) error {
				_ = pause(context.Background(), delay)
				tx.AfterCommit(func() {
					mu.Lock()
					defer mu.Unlock()
					effects[e.AggregateID] = append(effects[e.AggregateID], string(e.Data))
				})
				return nil
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	const total, keys = 3000, 30
	defer run(time.Millisecond)()
	for i := range total {
		if i%1000 == 500 {
			stop := run(time.Millisecond)
			time.AfterFunc(1500*time.Millisecond, stop)
		}
		publish(t, b, oneMessage(fmt.Sprintf("k%d", i%keys), fmt.Sprint(i)))
	}
	end := time.Now().Add(time.Minute)
	for {
		mu.Lock()
		n := 0
		for _, done := range effects {
			n += len(done)
		}
		mu.Unlock()
		if n >= total {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d effects, want %d", n, total)
		}
		_ = pause(t.Context(), 20*time.Millisecond)
	}
	_ = pause(t.Context(), 2*time.Second)
	mu.Lock()
	defer mu.Unlock()
	for k := range keys {
		key := fmt.Sprintf("k%d", k)
		var want []string
		for i := k; i < total; i += keys {
			want = append(want, fmt.Sprint(i))
		}
		if fmt.Sprint(effects[key]) != fmt.Sprint(want) {
			t.Errorf("%s: effects %v\nwant %v", key, effects[key], want)
		}
	}
}

// TestStaticMemberComesBack restarts a member within its session's time: no partition moves. Kafka counts
// another generation when it is the leader who comes back, and for others not even that.
func TestStaticMemberComesBack(t *testing.T) {
	url := server.Shared(t, server.Kafka)
	for _, who := range []int{0, 1} {
		cfg := Config{Prefix: prefix(), Partitions: 4, SessionTimeout: 10 * time.Second}
		brokers, members := make([]*Broker, 2), make([]*membership, 2)
		for i := range brokers {
			cfg.InstanceID = fmt.Sprintf("instance-%d", i)
			brokers[i] = open(t, url, cfg)
			members[i] = subscribe(t, brokers[i], "group", orders)
			for range 4 - 2*i {
				next(t, members[i])
			}
		}
		other := brokers[1-who]
		ours, held := partitionsOf(members[who]), partitionsOf(members[1-who])
		generation := generationOf(t, other)
		if err := brokers[who].Close(); err != nil {
			t.Fatal(err)
		}
		cfg.InstanceID = fmt.Sprintf("instance-%d", who)
		m := subscribe(t, open(t, url, cfg), "group", orders)
		for range 2 {
			if p := next(t, m); ours[p.Name()] == nil {
				t.Errorf("%s was not ours before", p.Name())
			}
		}
		_ = pause(t.Context(), 2*time.Second)
		for _, p := range held {
			if p.isRevoked() {
				t.Errorf("%s was taken from the other member", p.Name())
			}
		}
		if now := generationOf(t, other); who == 1 && now != generation {
			t.Errorf("generation %d, before it was %d: the group was rebalanced", now, generation)
		}
	}
}

func partitionsOf(m *membership) map[string]*partition {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := map[string]*partition{}
	for _, p := range m.parts {
		held[p.Name()] = p
	}
	return held
}

func generationOf(t *testing.T, b *Broker) int32 {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.members {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range m.parts {
			_, generation := p.session.group.GroupMetadata()
			return generation
		}
	}
	return -1
}

// TestSlowPartitionHoldsUpNothing leaves one partition alone while another is read: what waits is bounded.
func TestSlowPartitionHoldsUpNothing(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 2, Wait: 50 * time.Millisecond})
	m := subscribe(t, b, "group", orders)
	slow, fast := next(t, m), next(t, m)
	key := map[*partition]string{}
	for i := 0; len(key) < 2; i++ {
		k := fmt.Sprintf("key-%d", i)
		publish(t, b, oneMessage(k, "first"))
		for _, p := range []*partition{slow, fast} {
			for _, got := range fetchShort(t, p) {
				key[p] = got.Event.AggregateID
			}
		}
	}
	data := strings.Repeat("x", 1000)
	var last broker.Message
	for range 15 {
		var batch []broker.Message
		for range 1000 {
			batch = append(batch, oneMessage(key[slow], data))
		}
		last = oneMessage(key[fast], "fast")
		publish(t, b, append(batch[:999], last)...)
		expect(t, fast, last)
	}
	_ = pause(t.Context(), time.Second)
	slow.mu.Lock()
	n, bytes := len(slow.buffer), slow.bytes
	slow.mu.Unlock()
	if bytes > bufferBytesMax+fetchBytesMax || n > bufferMax+20_000 || n == 15*999 {
		t.Errorf("%d messages, %d bytes wait for the slow one", n, bytes)
	}
	t.Logf("%d messages of %d, %d bytes in the buffer", n, 15*999, bytes)
	for n := 0; n < 15*999; {
		got := fetchSome(t, slow)
		n += len(got)
	}
}

func fetchShort(t *testing.T, p broker.Partition) []broker.Message {
	t.Helper()
	got, err := p.Fetch(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestAcksAreCommitted looks at the group as a tool for its lag does.
func TestAcksAreCommitted(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 1})
	publish(t, b, oneMessage("a", "0"), oneMessage("a", "1"), oneMessage("a", "2"))
	p := next(t, subscribe(t, b, "group", orders))
	got := fetchSome(t, p)
	if err := p.Ack(t.Context(), got[1].Position); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		offsets, err := b.admin.FetchOffsets(ctx, b.cfg.groupName("group"))
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := offsets.Lookup(b.cfg.topicName(orders), 0); ok && o.At == 2 {
			return
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			t.Fatal("no commit of offset 2")
		}
	}
}
