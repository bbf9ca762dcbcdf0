package onlineretail_test

import (
	"encoding/csv"
	"testing"

	"github.com/settledev/settle/cmd/settle/internal/onlineretail"
)

func TestOpen(t *testing.T) {
	f, err := onlineretail.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rows[0][0], "InvoiceNo"; got != want {
		t.Errorf("first column is %s, want %s", got, want)
	}
	invoices := map[string]bool{}
	for _, row := range rows[1:] {
		invoices[row[0]] = true
	}
	if got, want := len(rows)-1, 42481; got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	if got, want := len(invoices), 2025; got != want {
		t.Errorf("%d invoices, want %d", got, want)
	}
}
