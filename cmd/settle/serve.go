package main

import (
	"context"
	"fmt"

	"github.com/settledev/settle/cmd/settle/internal/app"
)

// serveCmd is settle serve.
type serveCmd struct {
	shopFlags

	Catalog bool `help:"Give an empty catalogue the products of the bundled month." default:"true" negatable:""`
}

// Run serves until Ctrl-C.
func (s *serveCmd) Run(ctx context.Context, t *terminal) error {
	opts, err := s.options(t)
	if err != nil {
		return err
	}
	return serveWhile(ctx, opts, t, func(ctx context.Context, a *app.App) error {
		if s.Catalog {
			file, err := readFile("")
			if err != nil {
				return err
			}
			if err := a.Seed(ctx, file, 100); err != nil {
				return err
			}
		}
		_, _ = fmt.Fprintf(t.err, "serving %s until Ctrl-C\n", a.URL())
		<-ctx.Done()
		return ctx.Err()
	})
}
