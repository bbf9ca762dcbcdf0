package platform

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/settledev/settle/internal/statement"
	"github.com/settledev/settle/shop/deliver"
)

//go:embed sqlite/*.sql postgres/*.sql mysql/*.sql
var files embed.FS

// Migrations returns the service's tables in a dialect, as numbered files beside its statements. It panics
// when there is no such dialect.
func Migrations(dialect string) fs.FS {
	dir, err := statement.Folder(files, dialect)
	if err != nil {
		panic(fmt.Sprintf("platform: migrations: %v", err))
	}
	return dir
}

func loadStatements(store any) (q deliver.Statements, err error) {
	err = statement.Bind(files, store, map[string]*string{
		"platform.insert_delivery": &q.Insert,
		"platform.finish_delivery": &q.Finish,
		"platform.list_deliveries": &q.List,
	})
	if err != nil {
		return q, fmt.Errorf("platform: new: %w", err)
	}
	return q, nil
}
