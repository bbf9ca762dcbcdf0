package order

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
		panic(fmt.Sprintf("order: migrations: %v", err))
	}
	return dir
}

// queries are the statements in the store's dialect.
type queries struct {
	selectFacts, updateFacts, countContradiction string

	insertOrder, insertLines, selectByReference string

	selectReturnable, selectReturnedLines, addReturned string

	insertReturn, selectReturnByReference, selectReturn, updateReturn string

	viewOrder, viewReturns, listOrders, listReturns, listCustomerOrders string
}

func loadQueries(store any) (*queries, error) {
	q := &queries{}
	err := statement.Bind(files, store, map[string]*string{
		"order.select_facts":               &q.selectFacts,
		"order.update_facts":               &q.updateFacts,
		"order.count_contradiction":        &q.countContradiction,
		"order.insert_order":               &q.insertOrder,
		"order.insert_lines":               &q.insertLines,
		"order.select_by_reference":        &q.selectByReference,
		"order.select_returnable":          &q.selectReturnable,
		"order.select_returned_lines":      &q.selectReturnedLines,
		"order.add_returned":               &q.addReturned,
		"order.insert_return":              &q.insertReturn,
		"order.select_return_by_reference": &q.selectReturnByReference,
		"order.select_return":              &q.selectReturn,
		"order.update_return":              &q.updateReturn,
		"order.view_order":                 &q.viewOrder,
		"order.view_returns":               &q.viewReturns,
		"order.list_orders":                &q.listOrders,
		"order.list_returns":               &q.listReturns,
		"order.list_customer_orders":       &q.listCustomerOrders,
	})
	if err != nil {
		return nil, fmt.Errorf("order: new: %w", err)
	}
	return q, nil
}
