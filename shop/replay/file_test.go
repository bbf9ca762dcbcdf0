package replay_test

import (
	"compress/gzip"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/settledev/settle/shop/contract"
	"github.com/settledev/settle/shop/replay"
)

const bundled = "../../cmd/settle/internal/onlineretail/2010-12.csv.gz"

// TestMonth holds the reading of the file against the figures of the specification.
func TestMonth(t *testing.T) {
	f, err := os.Open(bundled)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	file, err := replay.Read(z)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]int{}
	accepted, returned := contract.NewMoney(0, contract.GBP), contract.NewMoney(0, contract.GBP)
	var orders, returns int
	var units, back int64
	for i := range file.Invoices {
		inv := &file.Invoices[i]
		if inv.Return {
			returns++
			returned = returned.Add(inv.Amount())
			for _, it := range inv.Items {
				if contract.Stocked(it.Product) {
					back += it.Quantity
				}
			}
			continue
		}
		orders++
		code := file.Code(inv)
		codes[code]++
		if code == "" {
			accepted = accepted.Add(inv.Amount())
		}
	}
	for _, n := range file.Stock(100) {
		units += n
	}
	if len(file.Corrupt) != 0 || file.Rows != 42481 || len(file.Invoices) != 2025 || orders != 1699 || returns != 326 {
		t.Errorf("rows %d, corrupt %d, invoices %d, orders %d, returns %d", file.Rows, len(file.Corrupt), len(file.Invoices), orders, returns)
	}
	if codes[""] != 1557 || codes["quantity-not-positive"] != 70 || codes["total-not-positive"] != 55 || codes["unknown-product"] != 17 {
		t.Errorf("refusals: %v", codes)
	}
	if accepted.Amount() != "821523.15" || returned.Amount() != "74789.12" {
		t.Errorf("accepted %s, returned %s", accepted, returned)
	}
	if units != 358768 || back != 16009 || len(file.Products) != 2799 {
		t.Errorf("units %d, returned %d, products %d", units, back, len(file.Products))
	}
}

// TestCorruptRows proves that an unreadable row is reported with its line, and the rest goes on.
func TestCorruptRows(t *testing.T) {
	const head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
	file, err := replay.Read(strings.NewReader(head +
		"536365,85123A,HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n" +
		"536365,85123A,HOLDER,six,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n" +
		"536365,85123A\n" +
		"536365,85123A,HOLDER,6,2010-12-01 08:26:00,two,17850.0,United Kingdom\n" +
		"536366,85123A,HOLDER,1,2010-12-01 08:26:00,2.55,,United Kingdom\n"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for _, c := range file.Corrupt {
		lines = append(lines, c.Line)
	}
	if file.Rows != 2 || len(lines) != 3 || lines[0] != 3 || lines[1] != 4 || lines[2] != 5 {
		t.Errorf("rows %d, corrupt lines %v, want 2 and [3 4 5]", file.Rows, lines)
	}
	if _, err := replay.Read(strings.NewReader("a,b,c\n1,2,3\n")); !errors.Is(err, replay.ErrNotRetail) {
		t.Errorf("a file of another form: %v, want ErrNotRetail", err)
	}
}
