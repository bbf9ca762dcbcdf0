package relaytest

import (
	"errors"
	"testing"
	"time"

	"github.com/settledev/settle/internal/storetest"
	"github.com/settledev/settle/outbox"
	"github.com/settledev/settle/relay"
)

func heldByAnother(t *testing.T, h Harness) {
	src := h.Open(t).Outbox()
	claim(t, src, "a")
	_, err := src.Claim(t.Context(), shard, "b", ttl)
	wantErr(t, "a shard whose lease runs must not be given to another owner", err, relay.ErrHeld)
}

func renewKeepsFence(t *testing.T, h Harness) {
	src := h.Open(t).Outbox()
	first := claim(t, src, "a")
	again := claim(t, src, "a")
	if again.Fence != first.Fence {
		t.Fatalf("renewing a lease must keep its fence: %d became %d", first.Fence, again.Fence)
	}
	if again.Expires.Before(first.Expires) {
		t.Fatalf("renewing a lease must not shorten it: %s became %s", first.Expires, again.Expires)
	}
}

// takeOver lets the lease of a run out and gives the shard to b.
func takeOver(t *testing.T, src relay.Source) (old, taken relay.Lease) {
	t.Helper()
	const short = 50 * time.Millisecond
	began := time.Now()
	old, err := src.Claim(t.Context(), shard, "a", short)
	must(t, "claim", err)
	storetest.Eventually(t, "a lease that nobody renews runs out", func() bool {
		taken, err = src.Claim(t.Context(), shard, "b", ttl)
		if err != nil && !errors.Is(err, relay.ErrHeld) {
			t.Fatalf("claim a held shard: got error %v, want ErrHeld", err)
		}
		return err == nil
	})
	if took := time.Since(began); took < short-time.Millisecond {
		t.Fatalf("a lease of %s was given away after %s", short, took)
	}
	return old, taken
}

func leaseRunsOut(t *testing.T, h Harness) {
	src := h.Open(t).Outbox()
	old, taken := takeOver(t, src)
	if taken.Fence <= old.Fence {
		t.Fatalf("the fence must rise with each owner: %d after %d", taken.Fence, old.Fence)
	}
	_, err := src.Claim(t.Context(), shard, "a", ttl)
	wantErr(t, "the old owner must not get the shard back while the new one holds it", err, relay.ErrHeld)
}

func releaseEndsLease(t *testing.T, h Harness) {
	src := h.Open(t).Outbox()
	old := claim(t, src, "a")
	must(t, "release", src.Release(t.Context(), old))
	if taken := claim(t, src, "b"); taken.Fence <= old.Fence {
		t.Fatalf("the fence must rise with each owner: %d after %d", taken.Fence, old.Fence)
	}
}

func oldOwnerIsFenced(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	storetest.Add(t, s, 1, "a", "a")
	old, taken := takeOver(t, src)
	records := read(t, src, taken, outbox.Position{}, 10)
	ctx, r := t.Context(), records[0]
	must(t, "advance by the owner", src.Advance(ctx, taken, records[0].Position))
	wantErr(t, "an old owner must not advance", src.Advance(ctx, old, records[1].Position), relay.ErrFenced)
	wantErr(t, "an old owner must not rewind", src.Rewind(ctx, old, outbox.Position{}), relay.ErrFenced)
	if lot, ok := src.(relay.Parking); ok {
		wantErr(t, "an old owner must not park", lot.Park(ctx, old, "cause", r), relay.ErrFenced)
		must(t, "park by the owner", lot.Park(ctx, taken, "cause", r))
		wantErr(t, "an old owner must not unpark", lot.Unpark(ctx, old, r), relay.ErrFenced)
	}
	if marks, ok := src.(relay.Marks); ok {
		err := marks.AddMark(ctx, old, relay.Mark{Position: r.Position, At: storetest.Now()})
		wantErr(t, "an old owner must not mark", err, relay.ErrFenced)
	}
	if err := src.Release(ctx, old); err != nil && !errors.Is(err, relay.ErrFenced) {
		t.Fatalf("release by an old owner: %v", err)
	}
	_, err := src.Claim(ctx, shard, "c", ttl)
	wantErr(t, "a release by an old owner must not free the shard", err, relay.ErrHeld)
	if again := claim(t, src, "b"); again.Position != records[0].Position {
		t.Fatalf("what an old owner tried must have no effect: position %s, want %s", again.Position, records[0].Position)
	}
}

func advanceIsKept(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	storetest.Add(t, s, 1, "a", "a", "a")
	lease := claim(t, src, "a")
	if !lease.Position.IsZero() {
		t.Fatalf("a new shard must start before its first event, not at %s", lease.Position)
	}
	records := read(t, src, lease, lease.Position, 10)
	must(t, "advance", src.Advance(t.Context(), lease, records[1].Position))
	must(t, "release", src.Release(t.Context(), lease))
	next := claim(t, src, "b")
	got := labels(t, read(t, src, next, next.Position, 10))
	storetest.Equal(t, "a new owner must go on behind what is settled", got, []string{"a/3"})
}

func rewindReadsAgain(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	storetest.Add(t, s, 1, "a", "a", "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	must(t, "advance", src.Advance(t.Context(), lease, records[2].Position))
	must(t, "rewind", src.Rewind(t.Context(), lease, records[0].Position))
	again := claim(t, src, "a")
	got := labels(t, read(t, src, again, again.Position, 10))
	storetest.Equal(t, "a rewind must be persisted, so that what was lost is published again", got, []string{"a/2", "a/3"})
	must(t, "rewind to the start", src.Rewind(t.Context(), again, outbox.Position{}))
	if again = claim(t, src, "a"); !again.Position.IsZero() {
		t.Fatalf("a rewind to the start must lead there while everything is kept, not to %s", again.Position)
	}
}

func rewindBehindRetention(t *testing.T, h Harness) {
	s := h.Open(t)
	src := s.Outbox()
	purger := storetest.Need[relay.Purger](t, src, h.Lacks, "Purger")
	storetest.Add(t, s, 1, "a", "a", "a")
	lease := claim(t, src, "a")
	records := read(t, src, lease, lease.Position, 10)
	must(t, "advance", src.Advance(t.Context(), lease, records[2].Position))
	n, err := purger.Purge(t.Context(), time.Now().Add(time.Hour), 2)
	if err != nil || n != 2 {
		t.Fatalf("purge of 2 settled events: %d, %v", n, err)
	}
	err = src.Rewind(t.Context(), lease, records[0].Position)
	wantErr(t, "a rewind to what is gone must be refused, events would be missing", err, relay.ErrRetention)
	err = src.Rewind(t.Context(), lease, outbox.Position{})
	wantErr(t, "a rewind to the start must be refused once events are gone", err, relay.ErrRetention)
	if again := claim(t, src, "a"); again.Position != records[2].Position {
		t.Fatalf("a refused rewind must change nothing: position %s, want %s", again.Position, records[2].Position)
	}
	must(t, "rewind to the oldest event kept", src.Rewind(t.Context(), lease, records[1].Position))
}
