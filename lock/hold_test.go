package lock_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/settledev/settle/lock"
	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/txn"
)

const ttl = 15 * time.Second

// faulty are leases whose calls fail or take long on command.
type faulty struct {
	lock.Leases

	acquire, renew func(ctx context.Context) error
	release        error
}

func (f *faulty) Acquire(ctx context.Context, name, owner string, ttl time.Duration) (lock.Lease, error) {
	l, err := f.Leases.Acquire(ctx, name, owner, ttl)
	if err == nil && f.acquire != nil {
		err = f.acquire(ctx)
	}
	return l, err
}

func (f *faulty) Renew(ctx context.Context, l lock.Lease, ttl time.Duration) (lock.Lease, error) {
	if f.renew != nil {
		if err := f.renew(ctx); err != nil {
			return lock.Lease{}, err
		}
	}
	return f.Leases.Renew(ctx, l, ttl)
}

func (f *faulty) Release(ctx context.Context, l lock.Lease) error {
	if f.release != nil {
		return f.release
	}
	return f.Leases.Release(ctx, l)
}

func quiet() lock.Config { return lock.Config{TTL: ttl, Logger: slog.New(slog.DiscardHandler)} }

// inBubble runs a test with leases on a fake clock.
func inBubble(t *testing.T, test func(t *testing.T, f *faulty)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &faulty{Leases: memory.New().Leases()}) })
}

func untilDone(ctx context.Context, _ lock.Lease) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func wantFree(t *testing.T, leases lock.Leases) {
	t.Helper()
	l, err := leases.Acquire(t.Context(), "a", "next", ttl)
	if err != nil || l.Fence != 2 {
		t.Errorf("the name must be free at fence 2 afterwards: got fence %d, %v", l.Fence, err)
	}
}

func TestHoldReturnsTheFunctionsError(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		refused := errors.New("refused")
		err := lock.Hold(t.Context(), f, "a", quiet(), func(context.Context, lock.Lease) error { return refused })
		if err != refused { //nolint:errorlint // As it is: the caller knows what it did.
			t.Errorf("got %v", err)
		}
		wantFree(t, f)
	})
}

func TestHoldRefusesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		if _, err := f.Acquire(t.Context(), "a", "other", ttl); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := lock.Hold(t.Context(), f, "a", quiet(), untilDone)
		held, ok := errors.AsType[*lock.HeldError](err)
		if !ok || held.Owner != "other" || !errors.Is(err, lock.ErrHeld) || time.Since(began) != 0 {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		if want := "lock: hold a: memory: acquire a: held by other until "; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %q, want %q", err, want)
		}
	})
}

func TestHoldWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		if _, err := f.Acquire(t.Context(), "a", "crashed", ttl); err != nil {
			t.Fatal(err)
		}
		cfg, began := quiet(), time.Now()
		cfg.Wait = true
		err := lock.Hold(t.Context(), f, "a", cfg, func(_ context.Context, l lock.Lease) error {
			if took := time.Since(began); took != ttl || l.Fence != 2 {
				t.Errorf("fence %d after %s, want 2 when the lease before has run out", l.Fence, took)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if _, err = f.Acquire(t.Context(), "a", "other", ttl); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := lock.Hold(ctx, f, "a", cfg, untilDone); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting must end with its context: got %v", err)
		}
	})
}

func TestHoldEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*ttl)
		defer cancel()
		err := lock.Hold(ctx, f, "a", quiet(), untilDone)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, lock.ErrLost) {
			t.Errorf("got %v", err)
		}
		wantFree(t, f)
	})
}

func TestHoldSurvivesFailedRenewals(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		failures := 0
		f.renew = func(context.Context) error {
			if failures++; failures%4 != 0 {
				return errors.New("database is away")
			}
			return nil
		}
		err := lock.Hold(t.Context(), f, "a", quiet(), func(ctx context.Context, _ lock.Lease) error {
			time.Sleep(10 * ttl)
			return ctx.Err()
		})
		if err != nil || failures < 20 {
			t.Errorf("got %v after %d renewals", err, failures)
		}
	})
}

func TestHoldStopsWhenItCannotRenew(t *testing.T) {
	for name, renew := range map[string]func(context.Context) error{
		"fails":   func(context.Context) error { return errors.New("database is away") },
		"hangs":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"is deaf": func(context.Context) error { time.Sleep(ttl); return errors.New("late") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *faulty) {
				f.renew = renew
				began := time.Now()
				err := lock.Hold(t.Context(), f, "a", quiet(), func(ctx context.Context, _ lock.Lease) error {
					<-ctx.Done()
					if took := time.Since(began); took != ttl-ttl/5 {
						t.Errorf("the work was ended after %s, want %s", took, ttl-ttl/5)
					}
					return nil
				})
				if !errors.Is(err, lock.ErrLost) {
					t.Errorf("got %v, want ErrLost also when the function returned nil", err)
				}
				wantFree(t, f)
			})
		})
	}
}

// TestHoldTellsOfALossThatNobodySaw ends the function when the lease is over and before anyone has told it so: as after
// a pause of the process, or when it did not heed its context.
func TestHoldTellsOfALossThatNobodySaw(t *testing.T) {
	for name, after := range map[string]time.Duration{"at that instant": ttl - ttl/5, "later": 2 * ttl} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *faulty) {
				f.renew = func(context.Context) error { return errors.New("database is away") }
				ctx, cancel := context.WithCancel(t.Context())
				err := lock.Hold(ctx, f, "a", quiet(), func(context.Context, lock.Lease) error {
					cancel()
					time.Sleep(after)
					return nil
				})
				if !errors.Is(err, lock.ErrLost) {
					t.Errorf("got %v, want ErrLost also when the function returned nil", err)
				}
				wantFree(t, f)
			})
		})
	}
}

func TestHoldStopsWhenItIsFenced(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		f.renew = func(context.Context) error { return lock.ErrFenced }
		began := time.Now()
		err := lock.Hold(t.Context(), f, "a", quiet(), untilDone)
		if !errors.Is(err, lock.ErrFenced) || time.Since(began) != ttl/3 {
			t.Errorf("got %v after %s, want ErrFenced at the first renewal", err, time.Since(began))
		}
	})
}

func TestHoldRefusesALeaseThatCameTooLate(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		f.acquire = func(context.Context) error { time.Sleep(ttl); return nil }
		err := lock.Hold(t.Context(), f, "a", quiet(), func(context.Context, lock.Lease) error {
			t.Error("the function was called under a lease that has run out")
			return nil
		})
		if !errors.Is(err, lock.ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
	})
}

func TestHoldReleasesAfterAPanic(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		func() {
			defer func() {
				if p := recover(); p != "on purpose" {
					t.Errorf("a panic must go on to the caller: got %v", p)
				}
			}()
			_ = lock.Hold(t.Context(), f, "a", quiet(), func(context.Context, lock.Lease) error { panic("on purpose") })
		}()
		wantFree(t, f)
	})
}

func TestHoldForgivesAFailedRelease(t *testing.T) {
	inBubble(t, func(t *testing.T, f *faulty) {
		f.release = errors.New("database is away")
		if err := lock.Hold(t.Context(), f, "a", quiet(), func(context.Context, lock.Lease) error { return nil }); err != nil {
			t.Errorf("what was done is done, the lease runs out by itself: got %v", err)
		}
	})
}

func TestHoldRefusesBadConfigs(t *testing.T) {
	leases := memory.New().Leases()
	for what, c := range map[string]struct {
		name string
		cfg  lock.Config
		want string
	}{
		"name":   {"", lock.Config{}, "lock: hold: name of 0 bytes, 1 to 200 allowed: out of bounds"},
		"owner":  {"a", lock.Config{Owner: strings.Repeat("o", 201)}, "lock: hold: owner of 201 bytes, 1 to 200 allowed: out of bounds"},
		"ttl":    {"a", lock.Config{TTL: time.Millisecond}, "lock: hold: time to live 1ms, 100ms to 24h0m0s allowed: out of bounds"},
		"margin": {"a", lock.Config{Margin: 8 * time.Second}, "lock: hold: margin 8s exceeds half of the time to live 15s: out of bounds"},
		"retry":  {"a", lock.Config{RetryEvery: -1}, "lock: hold: margin 3s, retry -1ns: must not be negative: out of bounds"},
	} {
		err := lock.Hold(t.Context(), leases, c.name, c.cfg, untilDone)
		if err == nil || err.Error() != c.want || !errors.Is(err, lock.ErrLimit) {
			t.Errorf("%s: got %v, want %s", what, err, c.want)
		}
	}
}

// plain is a store without locks.
type plain struct{}

func TestStoreWithoutLocks(t *testing.T) {
	tx := txn.NewTx(nil, plain{}, time.Now())
	if err := lock.Check(t.Context(), tx, lock.Lease{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("check: got %v", err)
	}
	if err := lock.Serialize(t.Context(), tx, "a"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("serialize: got %v", err)
	}
}
