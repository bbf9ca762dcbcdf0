package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/settledev/settle/driver/settlesqlite"
	"github.com/settledev/settle/shop/faults"
	"github.com/settledev/settle/shop/pgsim"
	"github.com/settledev/settle/shop/platformsim"
	"github.com/settledev/settle/shop/webhook"
	"github.com/settledev/settle/sqlstore"
)

// OutsideOptions say how the outside world behaves.
type OutsideOptions struct {
	// Dir holds its ledgers, which belong to this process.
	Dir string
	// GatewayAddr and PlatformAddr are where the two programs listen.
	GatewayAddr  string
	PlatformAddr string
	// WebhookURL receives the payment gateway's webhooks. Default: none are sent.
	WebhookURL string
	// WebhookSecretFile holds the secret that signs them. Default: a file in Dir, made when it is missing.
	WebhookSecretFile string
	// Gateway and Platform are their faults.
	Gateway  pgsim.Faults
	Platform faults.Transport
	// Logger receives everything. Required.
	Logger *slog.Logger

	secret string // when it is known already
}

// Outside is the world outside the shop: the payment gateway and the data platform, each with a ledger and
// a port of its own.
type Outside struct {
	gateway, platform *server
	pgsim             *pgsim.Server
	platformsim       *platformsim.Server
	stores            []*sqlstore.Store
}

// OpenOutside opens the ledgers and listens, but starts nothing; see [Outside.Run]. Close it in the end.
func OpenOutside(ctx context.Context, opts OutsideOptions) (_ *Outside, err error) {
	o := &Outside{}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	if opts.secret == "" {
		if opts.secret, err = readSecret(opts.WebhookSecretFile, filepath.Join(opts.Dir, "webhook-secret"), webhook.NewSecret); err != nil {
			return nil, err
		}
	}
	ledger := func(name string) (*sqlstore.Store, error) {
		s, err := settlesqlite.Open(ctx, filepath.Join(opts.Dir, name+".db"), settlesqlite.Config{
			Migrate: true, Store: sqlstore.Config{Logger: opts.Logger},
		})
		if err == nil {
			o.stores = append(o.stores, s)
		}
		return s, err
	}
	payments, err := ledger("pgsim")
	if err != nil {
		return nil, err
	}
	received, err := ledger("platformsim")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(pgsim.Migrate(ctx, payments), platformsim.Migrate(ctx, received)); err != nil {
		return nil, err
	}
	if o.pgsim, err = pgsim.New(payments, pgsim.Config{
		Faults: opts.Gateway, WebhookURL: opts.WebhookURL, WebhookSecret: opts.secret, Logger: opts.Logger,
	}); err != nil {
		return nil, err
	}
	if o.platformsim, err = platformsim.New(received, platformsim.Config{Faults: opts.Platform, Logger: opts.Logger}); err != nil {
		return nil, err
	}
	if o.gateway, err = listen(ctx, "pgsim", opts.GatewayAddr); err != nil {
		return nil, err
	}
	o.gateway.http.Handler = o.pgsim
	if o.platform, err = listen(ctx, "platformsim", opts.PlatformAddr); err != nil {
		return nil, err
	}
	o.platform.http.Handler = o.platformsim
	return o, nil
}

// Run serves until ctx is done and what is in progress has ended.
func (o *Outside) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := runner{fail: cancel}
	var all sync.WaitGroup
	r.run(ctx, &all, "pgsim", o.gateway.serve)
	r.run(ctx, &all, "pgsim", o.pgsim.Run)
	r.run(ctx, &all, "platformsim", o.platform.serve)
	r.run(ctx, &all, "platformsim", o.platformsim.Run)
	all.Wait()
	return r.err()
}

// GatewayURL is where the payment gateway listens.
func (o *Outside) GatewayURL() string { return o.gateway.url() }

// PlatformURL is where the data platform listens.
func (o *Outside) PlatformURL() string { return o.platform.url() }

// Close closes the ledgers. Run must have returned.
func (o *Outside) Close() error {
	var errs []error
	for _, s := range []*server{o.gateway, o.platform} {
		if s != nil {
			s.close()
		}
	}
	for _, s := range o.stores {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
