package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/settledev/settle/cmd/settle/internal/app"
)

// serveCmd is settle serve.
type serveCmd struct {
	shopFlags

	Services          []string      `help:"Only these services; --peer says where the others are. Default: all." placeholder:"NAME"`
	Peer              []string      `help:"Where a service runs that is not in this process: NAME=URL, once for each of its instances." placeholder:"NAME=URL" env:"SETTLE_PEERS"`
	GatewayURL        string        `help:"Address of the payment gateway. Default: one in this process, if it has all services." placeholder:"URL"`
	PlatformURL       string        `help:"Address of the data platform. Default: one in this process, if it has all services." placeholder:"URL"`
	OperatorTokenFile string        `help:"File with the operator's token, the same for every process. Default: operator-token in --dir, made when missing." placeholder:"FILE"`
	WebhookSecretFile string        `help:"File with the secret of the payment gateway's webhooks. Default: webhook-secret in --dir, made when missing." placeholder:"FILE"`
	Migrate           bool          `help:"Apply missing migrations first. Without it, a database that is not up to date is refused."`
	DrainDelay        time.Duration `help:"How long /readyz says that the process ends, before it stops to listen." default:"500ms"`
	Catalog           bool          `help:"Give an empty catalogue its products, and the inventory their stock." default:"true" negatable:""`
	Data              string        `help:"Retail file that the products come from. Default: the bundled month." placeholder:"FILE"`
	Stock             string        `help:"plenty, or tight=P for P percent of what the orders need." default:"plenty"`
}

// Run serves until Ctrl-C.
func (s *serveCmd) Run(ctx context.Context, t *terminal) error {
	percent, err := stockPercent(s.Stock)
	if err != nil {
		return err
	}
	opts, err := s.options(t)
	if err != nil {
		return err
	}
	if opts.Peers, err = peers(s.Peer); err != nil {
		return err
	}
	if s.DrainDelay < 0 {
		return usage("--drain-delay %s is negative", s.DrainDelay)
	}
	opts.Services, opts.Migrate, opts.DrainDelay = s.Services, s.Migrate, s.DrainDelay
	opts.GatewayURL, opts.PlatformURL = strings.TrimRight(s.GatewayURL, "/"), strings.TrimRight(s.PlatformURL, "/")
	opts.OperatorTokenFile, opts.WebhookSecretFile = s.OperatorTokenFile, s.WebhookSecretFile
	opts.Wait = true
	return serveWhile(ctx, opts, t, func(ctx context.Context, a *app.App) error {
		if !s.Catalog {
			return nil
		}
		file, err := readFile(s.Data)
		if err != nil {
			return err
		}
		return a.Seed(ctx, file, percent)
	}, func(ctx context.Context, a *app.App) error {
		_, _ = fmt.Fprintf(t.err, "serving %s until Ctrl-C\n", a.URL())
		<-ctx.Done()
		return ctx.Err()
	})
}

// peers reads NAME=URL for each instance.
func peers(texts []string) (map[string][]string, error) {
	all := map[string][]string{}
	for _, text := range texts {
		name, url, ok := strings.Cut(strings.TrimSpace(text), "=")
		if !ok || name == "" || url == "" {
			return nil, usage("--peer %q is not NAME=URL", text)
		}
		all[name] = append(all[name], url)
	}
	return all, nil
}
