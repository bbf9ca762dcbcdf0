package settlerabbit

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/internal/server"
)

// TestUnrouted publishes before anybody listens. The first group gets that before all else, also when its
// owner dies on the way, and another group gets what is published since it is known.
func TestUnrouted(t *testing.T) {
	cfg, url := config(t), shared(t)
	cfg.Partitions = 1
	b := openAt(t, url, cfg)
	b.prefetch = 20
	first, second := subscription("first"), subscription("second")
	t.Cleanup(func() { removeQueues(t, url, cfg, first, second) })
	publishNumbered(t, b, 1, 30)
	m := join(t, b, "first")
	publishNumbered(t, b, 31, 35)
	other := takeOne(t, join(t, b, "second"))
	publishNumbered(t, b, 36, 40)
	handled := 0
	for _, n := range []int{7, 12, 3} {
		p := takeOne(t, m)
		got := fetch(t, p, n)
		handled = inOrder(t, got, handled)
		if err := p.Ack(t.Context(), got[n/2].Position); err != nil {
			t.Fatal(err)
		}
		p.claim.link.kill()
		<-p.Revoked()
	}
	p := takeOne(t, m)
	for handled < 40 {
		got := fetch(t, p, 1)
		handled = inOrder(t, got, handled)
		if err := p.Ack(t.Context(), got[0].Position); err != nil {
			t.Fatal(err)
		}
	}
	if got := fetch(t, other, 5); number(t, &got[0]) != 36 {
		t.Errorf("the second group begins with message %d, want 36", number(t, &got[0]))
	}
}

func subscription(group string) broker.Subscription {
	return broker.Subscription{Group: group, Topics: []string{orderTopic}}
}

// inOrder fails when a message is beyond the next one, and returns the last.
func inOrder(t *testing.T, got []broker.Message, last int) int {
	t.Helper()
	for i := range got {
		n := number(t, &got[i])
		if n > last+1 {
			t.Fatalf("message %d came after %d", n, last)
		}
		last = max(last, n)
	}
	return last
}

// TestDeadLetterQueue gives messages back until the server has had enough.
func TestDeadLetterQueue(t *testing.T) {
	cfg, url := config(t), shared(t)
	cfg.Partitions, cfg.DeliveryLimit = 1, 2
	b := openAt(t, url, cfg)
	b.prefetch = 3
	t.Cleanup(func() { removeQueues(t, url, cfg, subscription("g")) })
	m := join(t, b, "g")
	publishNumbered(t, b, 1, 5)
	for range 3 {
		p := takeOne(t, m)
		if got := fetch(t, p, 3); number(t, &got[0]) != 1 {
			t.Fatalf("first is message %d, want 1", number(t, &got[0]))
		}
		if err := p.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if got := fetch(t, takeOne(t, m), 2); number(t, &got[0]) != 4 {
		t.Errorf("first is message %d after the limit, want 4", number(t, &got[0]))
	}
	l, err := b.lines.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dead := cfg.deadQueue("g", orderTopic, 0)
	for n := 1; n <= 3; n++ {
		err := b.onChannel(l, func(ch *amqp.Channel) error {
			for deadline := time.Now().Add(20 * time.Second); ; {
				d, ok, err := ch.Get(dead, true)
				if err != nil {
					return err
				}
				if ok {
					got := decode(orderTopic, dead, &d)
					if got.Err != nil || number(t, &got) != n {
						t.Errorf("dead letter %d is %q, %v", n, got.Event.Data, got.Err)
					}
					return nil
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s has %d messages, want 3", dead, n-1)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherPartitionsAreRefused(t *testing.T) {
	cfg, url := config(t), shared(t)
	t.Cleanup(func() { removeQueues(t, url, cfg, subscription("g")) })
	publishNumbered(t, openAt(t, url, cfg), 1, 1)
	other := cfg
	other.Partitions = 7
	b := openAt(t, url, other)
	if err := b.Publish(t.Context(), []broker.Message{oneMessage("key", 2)})[0]; !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "config") {
		t.Errorf("publish to a topic with other partitions: %v, want ErrUnavailable that says why", err)
	}
	if _, err := b.Subscribe(t.Context(), subscription("g")); err == nil || !strings.Contains(err.Error(), "config") {
		t.Errorf("subscribe to a topic with other partitions: %v", err)
	}
}

// TestDeletedQueueIsMadeAgain has an operator delete a queue under its reader.
func TestDeletedQueueIsMadeAgain(t *testing.T) {
	cfg, url := config(t), shared(t)
	cfg.Partitions = 1
	b := openAt(t, url, cfg)
	t.Cleanup(func() { removeQueues(t, url, cfg, subscription("g")) })
	m := join(t, b, "g")
	p := takeOne(t, m)
	publishNumbered(t, b, 1, 1)
	fetch(t, p, 1)
	l, err := b.lines.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = b.onChannel(l, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(cfg.queue("g", orderTopic, 0), false, false, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	publishNumbered(t, b, 2, 2)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := p.Fetch(t.Context(), 1); errors.Is(err, broker.ErrRevoked) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the partition of a deleted queue goes on")
		}
	}
	if got := fetch(t, takeOne(t, m), 1); number(t, &got[0]) != 2 {
		t.Errorf("first is message %d, want 2", number(t, &got[0]))
	}
}

// TestServerRejectsSize has a server refuse a message by ending the channel.
func TestServerRejectsSize(t *testing.T) {
	srv := server.Start(t, server.Rabbit, server.Options{Settings: map[string]string{"max_message_size": "100000"}})
	b := openAt(t, srv.URL(), config(t))
	batch := []broker.Message{oneMessage("a", 1), oneMessage("b", 2), oneMessage("c", 3)}
	batch[1].Event.Data = bytes.Repeat([]byte("1"), 100_001)
	errs := b.Publish(t.Context(), batch)
	var rejected *broker.RejectedError
	if errs[0] != nil || !errors.As(errs[1], &rejected) || errs[2] != nil {
		t.Fatalf("results %v, want the second rejected only", errs)
	}
	if !strings.Contains(rejected.Reason, "100001") || !strings.Contains(rejected.Reason, "100000") {
		t.Errorf("the refusal lacks its numbers: %s", rejected.Reason)
	}
}

// TestChannelEndedByServer has the server end a reading, as it does with an owner that holds messages for
// longer than its consumer_timeout.
func TestChannelEndedByServer(t *testing.T) {
	cfg, url := config(t), shared(t)
	cfg.Partitions = 1
	b := openAt(t, url, cfg)
	t.Cleanup(func() { removeQueues(t, url, cfg, subscription("g")) })
	p := takeOne(t, join(t, b, "g"))
	publishNumbered(t, b, 1, 4)
	held := fetch(t, p, 3)
	if err := p.feed.ch.Ack(1<<40, false); err != nil { // A delivery that never was.
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := p.Fetch(t.Context(), 1)
		if errors.Is(err, broker.ErrUnavailable) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("fetch: %v, want ErrUnavailable", err)
		}
	}
	if err := p.Ack(t.Context(), held[2].Position); err != nil {
		t.Errorf("ack on a channel that has ended: %v, want none", err)
	}
	again := fetch(t, p, 4)
	if inOrder(t, again, 0) != 4 || again[0].Position.Incarnation == held[0].Position.Incarnation {
		t.Errorf("first is message %d at %s", number(t, &again[0]), again[0].Position)
	}
	if err := p.Ack(t.Context(), held[2].Position); err != nil { // Of the channel before: it settles nothing here.
		t.Error(err)
	}
	if p.feed.acked != 0 {
		t.Errorf("acknowledged up to %d by a position of another channel", p.feed.acked)
	}
}

// TestBlame tells whose fault it was that the server ended a channel.
func TestBlame(t *testing.T) {
	b := &Broker{cfg: Config{Prefix: "p"}}
	messages := []broker.Message{oneMessage("a", 1), oneMessage("b", 2), oneMessage("c", 3)}
	messages[1].Event.Topic = "secret"
	messages[2].Event.Data = make([]byte, 2000)
	for name, test := range map[string]struct {
		reason amqp.Error
		want   int // the message to be rejected
	}{
		"not allowed": {amqp.Error{Code: amqp.AccessRefused, Reason: "ACCESS_REFUSED - write access to exchange 'p/secret' in vhost '/' refused for user 'shop'"}, 1},
		"too large":   {amqp.Error{Code: amqp.PreconditionFailed, Reason: "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000"}, 2},
		"neither":     {amqp.Error{Code: amqp.InternalError, Reason: "INTERNAL_ERROR"}, -1},
		"deleted":     {amqp.Error{Code: amqp.NotFound, Reason: "NOT_FOUND - no exchange 'p/secret' in vhost '/'"}, -1},
	} {
		c := call{broker: b, messages: messages, errs: make([]error, 3), left: []int{0, 1, 2}}
		one := &line{link: &link{topics: map[string]bool{"secret": true}}}
		found := c.blame(one, &test.reason)
		for i, err := range c.errs {
			var rejected *broker.RejectedError
			if errors.As(err, &rejected) != (i == test.want) {
				t.Errorf("%s: message %d: %v", name, i, err)
			}
		}
		if found != (test.want >= 0) || test.want < 0 && len(c.left) != 3 || found && len(c.left) != 2 {
			t.Errorf("%s: found %t, left %v", name, found, c.left)
		}
	}
}

// fetch waits for n messages.
func fetch(t *testing.T, p *partition, n int) (got []broker.Message) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(got) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages, want %d", len(got), n)
		}
		messages, err := p.Fetch(t.Context(), n-len(got))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, messages...)
	}
	return got
}
