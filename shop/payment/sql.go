package payment

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
		panic(fmt.Sprintf("payment: migrations: %v", err))
	}
	return dir
}

// queries are the statements in the store's dialect.
type queries struct {
	selectPayment, insertPayment, updatePayment string

	insertRefund, updateRefund, insertWebhook string

	listPayments, listRefunds, selectOpen string
}

func loadQueries(store any) (*queries, error) {
	q := &queries{}
	err := statement.Bind(files, store, map[string]*string{
		"payment.select_payment": &q.selectPayment,
		"payment.insert_payment": &q.insertPayment,
		"payment.update_payment": &q.updatePayment,
		"payment.insert_refund":  &q.insertRefund,
		"payment.update_refund":  &q.updateRefund,
		"payment.insert_webhook": &q.insertWebhook,
		"payment.list_payments":  &q.listPayments,
		"payment.list_refunds":   &q.listRefunds,
		"payment.select_open":    &q.selectOpen,
	})
	if err != nil {
		return nil, fmt.Errorf("payment: new: %w", err)
	}
	return q, nil
}
