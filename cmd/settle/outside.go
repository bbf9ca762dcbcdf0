package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/settledev/settle/cmd/settle/internal/app"
)

// outsideCmd is settle outside.
type outsideCmd struct {
	Dir               string `help:"Directory of its ledgers; made when missing." default:"settle-outside" placeholder:"DIR"`
	AddrGateway       string `help:"Address of the payment gateway." default:"127.0.0.1:8090"`
	AddrPlatform      string `help:"Address of the data platform." default:"127.0.0.1:8091"`
	WebhookURL        string `help:"Where webhooks go: /webhooks/payments of the shop's gateway. Default: none are sent." placeholder:"URL"`
	WebhookSecretFile string `help:"File with the secret that signs webhooks. Default: webhook-secret in --dir, made when missing." placeholder:"FILE"`

	outsideFlags
}

// Run serves until Ctrl-C.
func (o *outsideCmd) Run(ctx context.Context, t *terminal) (err error) {
	gateway, platform, err := o.faults()
	if err != nil {
		return err
	}
	world, err := app.OpenOutside(ctx, app.OutsideOptions{
		Dir: o.Dir, GatewayAddr: o.AddrGateway, PlatformAddr: o.AddrPlatform, WebhookURL: o.WebhookURL,
		WebhookSecretFile: o.WebhookSecretFile, Gateway: gateway, Platform: platform, Logger: t.log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	_, _ = fmt.Fprintf(t.err, "webhooks  secret in %s\npgsim     %s\nplatform  %s\n",
		cmp.Or(o.WebhookSecretFile, filepath.Join(o.Dir, "webhook-secret")), world.GatewayURL(), world.PlatformURL())
	return world.Run(ctx)
}
