package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/settledev/settle/cmd/settle/internal/app"
)

// serveCmd is settle serve.
type serveCmd struct {
	shopFlags

	Services []string `help:"Only these services; the others' events wait for them. Default: all." placeholder:"NAME"`
	Catalog  bool     `help:"Give an empty catalogue the products of the bundled month." default:"true" negatable:""`
}

// Run serves until Ctrl-C.
func (s *serveCmd) Run(ctx context.Context, t *terminal) error {
	opts, err := s.options(t)
	if err != nil {
		return err
	}
	for _, name := range s.Services {
		if !slices.Contains(app.Services(), name) {
			return usage("--services: %q is none of %s", name, strings.Join(app.Services(), ", "))
		}
	}
	opts.Services = s.Services
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
