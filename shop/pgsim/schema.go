package pgsim

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/settledev/settle/txn"
)

//go:embed schema.sql
var schema string

// Schema returns the statements that make the ledger's tables, in SQLite's SQL; running them again
// changes nothing. Each ends with a semicolon at the end of a line.
func Schema() string { return schema }

// Migrate creates the ledger's tables where they are missing.
func Migrate(ctx context.Context, run txn.Runner) error {
	return run.Run(ctx, func(ctx context.Context, tx *txn.Tx) error {
		for statement := range strings.SplitSeq(schema, ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("pgsim: migrate: %w", err)
			}
		}
		return nil
	})
}
