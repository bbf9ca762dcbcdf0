package catalog

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
		panic(fmt.Sprintf("catalog: migrations: %v", err))
	}
	return dir
}

// queries are the statements in the store's dialect.
type queries struct {
	lockProduct, selectProducts, insertProducts, updatePrice, addView string

	addLikes, insertLike, deleteLike string

	listProducts, selectProduct string
}

func loadQueries(store any) (*queries, error) {
	q := &queries{}
	err := statement.Bind(files, store, map[string]*string{
		"catalog.lock_product":    &q.lockProduct,
		"catalog.select_products": &q.selectProducts,
		"catalog.insert_products": &q.insertProducts,
		"catalog.update_price":    &q.updatePrice,
		"catalog.add_view":        &q.addView,
		"catalog.add_likes":       &q.addLikes,
		"catalog.insert_like":     &q.insertLike,
		"catalog.delete_like":     &q.deleteLike,
		"catalog.list_products":   &q.listProducts,
		"catalog.select_product":  &q.selectProduct,
	})
	if err != nil {
		return nil, fmt.Errorf("catalog: new: %w", err)
	}
	return q, nil
}
