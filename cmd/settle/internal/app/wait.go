package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/settledev/settle/retry"
)

const (
	// attemptMax bounds one attempt to open something.
	attemptMax = 30 * time.Second
	// sayEvery is how often an outage that lasts is told.
	sayEvery = time.Minute
	// patience is how long an error may last that nobody knows: a server that is starting has many words for it,
	// but so has a URL that is wrong.
	patience = time.Minute
)

// Wait is how something that is away is waited for.
type Wait struct {
	// What is waited for, such as "the broker".
	What string
	// NoLimit lets one attempt take as long as it takes: migrations may.
	NoLimit bool
	// Logger is told when the wait begins, and that it lasts. Required.
	Logger *slog.Logger
}

// Await calls open until it succeeds, or fails as only a person can mend (see [Fault]), or as nobody knows for
// a minute, or ctx is done. An outage is waited out, however long it lasts.
func Await(ctx context.Context, w Wait, open func(context.Context) error) error {
	policy, err := retry.Policy{Initial: 200 * time.Millisecond, WaitMax: 10 * time.Second, Forever: true}.WithDefaults()
	if err != nil {
		return err
	}
	var said time.Time
	unknown := time.Now()
	for attempt := 1; ; attempt++ {
		err := w.attempt(ctx, open)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case IsOutage(err):
			unknown = time.Now()
		case Fault(err) != "" || time.Since(unknown) > patience:
			return err
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			w.Logger.Warn("cannot be opened, trying again", "what", w.What, "err", err)
		}
		timer := time.NewTimer(policy.Wait(attempt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (w Wait) attempt(ctx context.Context, open func(context.Context) error) error {
	if w.NoLimit {
		return open(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptMax)
	defer cancel()
	return open(ctx)
}

// await opens something, again and again while its server is away when that is what the process is to do.
// Meanwhile /readyz says what for.
func (a *App) await(ctx context.Context, what string, open func(context.Context) error) error {
	if !a.opts.Wait {
		return open(ctx)
	}
	a.waits.Store(&what)
	defer a.waits.Store(nil)
	return Await(ctx, Wait{What: what, NoLimit: a.opts.Migrate, Logger: a.opts.Logger}, open)
}

// awaitDatabase is await for a service's database. A file is there or not: nobody else starts it.
func (a *App) awaitDatabase(ctx context.Context, service string, open func(context.Context) error) error {
	if a.where.dialect == "sqlite" {
		return open(ctx)
	}
	return a.await(ctx, "the database of "+service, open)
}
