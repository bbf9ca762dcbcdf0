package shipping

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
		panic(fmt.Sprintf("shipping: migrations: %v", err))
	}
	return dir
}

// queries are the statements in the store's dialect.
type queries struct {
	selectShipment, insertShipment, updateShipment string
}

func loadQueries(store any) (*queries, error) {
	q := &queries{}
	err := statement.Bind(files, store, map[string]*string{
		"shipping.select_shipment": &q.selectShipment,
		"shipping.insert_shipment": &q.insertShipment,
		"shipping.update_shipment": &q.updateShipment,
	})
	if err != nil {
		return nil, fmt.Errorf("shipping: new: %w", err)
	}
	return q, nil
}
