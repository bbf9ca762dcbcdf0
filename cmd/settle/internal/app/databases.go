package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/settledev/settle/driver/settlemysql"
	"github.com/settledev/settle/driver/settlepgx"
)

// create makes the databases that a server does not have yet. Files are made when they are opened.
func (u storeURL) create(ctx context.Context, services []string) error {
	for _, name := range services {
		var err error
		switch u.dialect {
		case "postgres":
			err = settlepgx.EnsureDatabase(ctx, u.of(name))
		case "mysql":
			err = settlemysql.EnsureDatabase(ctx, u.of(name))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// drop deletes the databases of a server that are a shop's, until one of them is not.
func (u storeURL) drop(ctx context.Context, services []string) error {
	for _, name := range services {
		var err error
		switch u.dialect {
		case "postgres":
			err = settlepgx.DropDatabase(ctx, u.of(name))
		case "mysql":
			err = settlemysql.DropDatabase(ctx, u.of(name))
		}
		if errors.Is(err, settlepgx.ErrNotOurs) || errors.Is(err, settlemysql.ErrNotOurs) {
			err = fmt.Errorf("%w: %w", ErrNotOurs, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
