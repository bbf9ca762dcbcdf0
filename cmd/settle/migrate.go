package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/doctor"
)

// migrateCmd is settle migrate.
type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Apply what is missing."`
	Status migrateStatusCmd `cmd:"" help:"Show what is applied, pending, or newer than this program; exit code 1 when something is pending or changed."`
	Print  migratePrintCmd  `cmd:"" help:"Print the SQL instead, for a migration tool of your own."`
}

// databases names databases beside the shop.
type databases struct {
	Store    string   `help:"postgres://user@host/database, mysql://user@host/database or sqlite:FILE; with --services as for serve, where the path begins each database's name." required:"" placeholder:"URL"`
	Services []string `help:"The databases of these services of the shop, with their own tables; all for every one. Default: exactly the URL's database, with settle's tables only." placeholder:"NAME"`
}

// each calls fn for every database that is named.
func (f *databases) eachDatabase(fn func(app.Database) error) error {
	services := f.Services
	if len(services) == 1 && services[0] == "all" {
		services = app.Services()
	}
	all, err := app.Databases(f.Store, "", services)
	if err != nil {
		return err
	}
	for _, d := range all {
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}

// explained is an error with what to do about it.
func explained(d app.Database, err error) error {
	if do := app.Fault(err); do != "" {
		return fmt.Errorf("%s: %w: %s", d.Name, err, do)
	}
	return fmt.Errorf("%s: %w", d.Name, err)
}

type migrateUpCmd struct {
	databases

	Create bool `help:"Make databases that the server does not have."`
}

// Run migrates.
func (c *migrateUpCmd) Run(ctx context.Context, t *terminal) error {
	return c.eachDatabase(func(d app.Database) error {
		if c.Create {
			if err := d.Create(ctx); err != nil {
				return explained(d, err)
			}
		}
		n, err := d.Migrate(ctx)
		if err != nil {
			return explained(d, err)
		}
		_, err = fmt.Fprintf(t.out, "%s: %d migrations applied\n", d.Name, n)
		return err
	})
}

type migrateStatusCmd struct {
	databases
	listing
}

// migrationState is a migration of one database.
type migrationState struct {
	Database string `json:"database"`

	doctor.Migration
}

// Run shows migrations, and fails when one is pending.
func (c *migrateStatusCmd) Run(ctx context.Context, t *terminal) error {
	var all []migrationState
	wrong := 0
	err := c.eachDatabase(func(d app.Database) error {
		of, err := doctor.Status(ctx, d)
		if err != nil {
			return explained(d, err)
		}
		for _, m := range of {
			all = append(all, migrationState{d.Name, m})
			if m.State == "pending" || m.State == "changed" {
				wrong++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = printItems(t, c.JSON, all, "DATABASE\tSCHEMA\tVERSION\tSTATE\tFILE", func(m migrationState) string {
		file := m.File
		if m.State == "newer" {
			file = fmt.Sprintf("(this program knows up to %d)", m.Known)
		}
		return fmt.Sprintf("%s\t%s\t%d\t%s\t%s", m.Database, m.Schema, m.Version, m.State, file)
	})
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%d of %d migrations are not applied: settle migrate up, with the same --store", wrong, len(all))
	}
	return err
}

type migratePrintCmd struct {
	databases
}

// Run prints the SQL. It asks no server.
func (c *migratePrintCmd) Run(_ context.Context, t *terminal) error {
	return c.eachDatabase(func(d app.Database) error {
		all, err := doctor.Migrations(d)
		if err != nil {
			return err
		}
		record, err := doctor.Record(d)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(t.out, "-- Database: %s\n\n%s\n", d.Name, record)
		for _, m := range all {
			if err == nil {
				_, err = fmt.Fprintf(t.out, "-- %s: %s\n\n%s\n%s\n", m.Schema, m.File, strings.TrimSpace(m.Text), m.Applied(d))
			}
		}
		return err
	})
}
