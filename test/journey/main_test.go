package journey_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/test/internal/binary"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

// patience bounds every wait: the machine may be busy with other tests.
const patience = 2 * time.Minute

// order is what the shop shows of an order.
type order struct {
	ID, State, Reason string
	Total             struct{ Amount, Currency string }
	Timeline          []struct{ ID, Type, Producer string }
}

// newDir returns a data directory that does not exist yet.
func newDir(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "shop")
}

// serve starts a shop with the bundled month's products on a directory.
func serve(t *testing.T, dir string, flags ...string) *binary.Process {
	t.Helper()
	p := binary.Start(t, dir, append([]string{"serve"}, flags...)...)
	binary.Eventually(t, patience, "the shop serves", func() bool {
		if p.Ended() {
			t.Fatalf("the shop has ended:\n%s", p.Stderr())
		}
		return strings.Contains(p.Stderr(), "\nserving ")
	})
	return p
}

// stop ends the shop as Ctrl-C does, which must drain.
func stop(t *testing.T, p *binary.Process) {
	t.Helper()
	if code := p.Stop(); code != 0 {
		t.Fatalf("Ctrl-C ended with exit code %d:\n%s", code, p.Stderr())
	}
}

// basket is the body of an order of a few units of a product that the bundled month has plenty of.
func basket(quantity int) string {
	return fmt.Sprintf(`{"customerId":"c-1","items":[{"productId":"85123A","quantity":%d}]}`, quantity)
}

// place takes an order, which must be accepted, and returns its id.
func place(t *testing.T, p *binary.Process) string {
	t.Helper()
	a := p.Send(http.MethodPost, "/orders", basket(2))
	if a.Status != http.StatusAccepted {
		t.Fatalf("POST /orders: %d %s", a.Status, a.Body)
	}
	var o order
	a.Decode(t, &o)
	if o.ID == "" || a.Header.Get("Location") != "/orders/"+o.ID {
		t.Fatalf("POST /orders: location %q, body %s", a.Header.Get("Location"), a.Body)
	}
	return o.ID
}

func show(t *testing.T, p *binary.Process, id string) order {
	t.Helper()
	a := p.Send(http.MethodGet, "/orders/"+id, "")
	if a.Status != http.StatusOK {
		t.Fatalf("GET /orders/%s: %d %s", id, a.Status, a.Body)
	}
	var o order
	a.Decode(t, &o)
	return o
}

// until waits for an order's state.
func until(t *testing.T, p *binary.Process, id, state string) order {
	t.Helper()
	var o order
	binary.Eventually(t, patience, "order "+id+" is "+state, func() bool {
		o = show(t, p, id)
		return o.State == state
	})
	return o
}

// ledger is a reference in the gateway's books.
type ledger struct{ Reference, Kind, Status, Authorized, Captured, Voided, Refunded string }

// authorization returns what the gateway has of an order's payment, if anything.
func authorization(t *testing.T, p *binary.Process, id string) (ledger, bool) {
	t.Helper()
	for _, l := range binary.List[ledger](t, p, p.Gateway+"/v1/ledger") {
		if l.Kind == "authorization" && l.Reference == id {
			return l, true
		}
	}
	return ledger{}, false
}

// retail writes a retail file of n invoices of one row, and returns its path.
func retail(t *testing.T, n int, more ...string) string {
	t.Helper()
	rows := []string{"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"}
	for i := range n {
		rows = append(rows, fmt.Sprintf("%d,%d,THING %d,%d,2010-12-01 08:26:00,2.55,17850.0,United Kingdom", 536365+i, 10000+i%7, i%7, 1+i%5))
	}
	path := filepath.Join(t.TempDir(), "retail.csv")
	if err := os.WriteFile(path, []byte(strings.Join(append(rows, more...), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
