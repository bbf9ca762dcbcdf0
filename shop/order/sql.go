package order

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed sqlite/*.sql
var sqliteFiles embed.FS

// Migrations returns the service's numbered migrations (NNNN_title.sql): they are applied by command.
func Migrations() fs.FS {
	dir, err := fs.Sub(sqliteFiles, "sqlite")
	if err != nil {
		panic(err) // The folder is embedded above.
	}
	return dir
}

// queries are the statements of one dialect.
type queries struct {
	selectFacts, updateFacts, countContradiction string

	insertOrder, insertLines, selectByReference string

	selectReturnable, selectReturnedLines, addReturned string

	insertReturn, selectReturnByReference, selectReturn, updateReturn string

	viewOrder, viewReturns, listOrders, listReturns, listCustomerOrders string
}

// Statements returns the text of every statement by its name, for tests and for people.
func Statements() map[string]string {
	src, err := sqliteFiles.ReadFile("sqlite/order.sql")
	if err != nil {
		panic(err) // The file is embedded above.
	}
	_, all, _ := strings.Cut(string(src), "-- name: ") // A comment stands before the first.
	named := map[string]string{}
	for part := range strings.SplitSeq(all, "\n-- name: ") {
		name, text, _ := strings.Cut(part, "\n")
		named[name] = strings.TrimSuffix(strings.TrimSpace(text), ";")
	}
	return named
}

// loadQueries refuses a file that lacks a statement.
func loadQueries() (*queries, error) {
	named := Statements()
	q := &queries{}
	for name, dest := range map[string]*string{
		"select_facts": &q.selectFacts, "update_facts": &q.updateFacts, "count_contradiction": &q.countContradiction,
		"insert_order": &q.insertOrder, "insert_lines": &q.insertLines, "select_by_reference": &q.selectByReference,
		"select_returnable": &q.selectReturnable, "select_returned_lines": &q.selectReturnedLines, "add_returned": &q.addReturned,
		"insert_return": &q.insertReturn, "select_return_by_reference": &q.selectReturnByReference,
		"select_return": &q.selectReturn, "update_return": &q.updateReturn,
		"view_order": &q.viewOrder, "view_returns": &q.viewReturns, "list_orders": &q.listOrders,
		"list_returns": &q.listReturns, "list_customer_orders": &q.listCustomerOrders,
	} {
		if *dest = named[name]; *dest == "" {
			return nil, fmt.Errorf("order: sqlite/order.sql lacks statement %s", name)
		}
	}
	return q, nil
}
