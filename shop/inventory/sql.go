package inventory

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/settledev/settle/internal/statement"
)

//go:embed sqlite/*.sql postgres/*.sql mysql/*.sql
var files embed.FS

// Migrations returns the service's tables in a dialect, as numbered files beside its statements. It panics
// when there is no such dialect.
func Migrations(dialect string) fs.FS {
	dir, err := statement.Folder(files, dialect)
	if err != nil {
		panic(fmt.Sprintf("inventory: migrations: %v", err))
	}
	return dir
}

// queries are the statements in the store's dialect.
type queries struct {
	selectReservation, insertReservation, updateReservation, shortReservation string

	lockStock, takeStock, giveStock, insertReturn, seedStock string

	selectFree, listStock, listMovements string
}

func loadQueries(store any) (*queries, error) {
	q := &queries{}
	err := statement.Bind(files, store, map[string]*string{
		"inventory.select_reservation": &q.selectReservation,
		"inventory.insert_reservation": &q.insertReservation,
		"inventory.update_reservation": &q.updateReservation,
		"inventory.short_reservation":  &q.shortReservation,
		"inventory.lock_stock":         &q.lockStock,
		"inventory.take_stock":         &q.takeStock,
		"inventory.give_stock":         &q.giveStock,
		"inventory.insert_return":      &q.insertReturn,
		"inventory.seed_stock":         &q.seedStock,
		"inventory.select_free":        &q.selectFree,
		"inventory.list_stock":         &q.listStock,
		"inventory.list_movements":     &q.listMovements,
	})
	if err != nil {
		return nil, fmt.Errorf("inventory: new: %w", err)
	}
	return q, nil
}
