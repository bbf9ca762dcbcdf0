package notify

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
		panic(fmt.Sprintf("notify: migrations: %v", err))
	}
	return dir
}

func loadStatements(store any) (q deliver.Statements, err error) {
	err = statement.Bind(files, store, map[string]*string{
		"notify.insert_message": &q.Insert,
		"notify.finish_message": &q.Finish,
		"notify.list_messages":  &q.List,
	})
	if err != nil {
		return q, fmt.Errorf("notify: new: %w", err)
	}
	return q, nil
}
