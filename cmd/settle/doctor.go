package main

import (
	"context"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/doctor"
)

// doctorCmd is settle doctor.
type doctorCmd struct {
	databases
	listing

	Broker string `help:"Look at this broker too: nats://, kafka://, redis:// or amqp://." placeholder:"URL"`
}

// Run looks, and fails when something has to be mended.
func (c *doctorCmd) Run(ctx context.Context, t *terminal) error {
	var all []doctor.Finding
	err := c.eachDatabase(func(d app.Database) error {
		all = append(all, doctor.Database(ctx, d, doctor.Config{})...)
		return nil
	})
	if err != nil {
		return err
	}
	if c.Broker != "" {
		all = append(all, doctor.Broker(ctx, "broker", c.Broker, app.Carrier{Logger: t.log})...)
	}
	return printFindings(t, c.JSON, all)
}
