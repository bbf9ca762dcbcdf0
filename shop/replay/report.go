package replay

// Report is the reconciliation of every book, reference by reference.
type Report struct {
	File            FileReport      `json:"file"`
	Accepted        int             `json:"accepted"`
	Rejected        map[string]int  `json:"rejected"`
	Terminal        map[string]int  `json:"terminal"`
	Canceled        map[string]int  `json:"canceled"`
	Open            int             `json:"open"`
	Returns         map[string]int  `json:"returns"`
	Money           MoneyReport     `json:"money"`
	Units           UnitsReport     `json:"units"`
	Platform        PlatformReport  `json:"platform"`
	Notify          NotifyReport    `json:"notify"`
	Events          EventsReport    `json:"events"`
	Mismatches      []Mismatch      `json:"mismatches"`
	MismatchesMore  int             `json:"mismatches_more,omitempty"`
	Seconds         float64         `json:"seconds"`
	OrdersPerSecond float64         `json:"orders_per_second"`
	Latency         LatencyReport   `json:"latency_ms"`
	Balanced        bool            `json:"balanced"`
	Corrupt         []CorruptReport `json:"corrupt_rows,omitempty"`
}

// FileReport counts what the file has.
type FileReport struct {
	Rows     int `json:"rows"`
	Invoices int `json:"invoices"`
	Orders   int `json:"orders"`
	Returns  int `json:"returns"`
	Products int `json:"products"`
}

// CorruptReport is a row that could not be read.
type CorruptReport struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

// MoneyReport has sums, as decimals with two digits.
type MoneyReport struct {
	Accepted          string `json:"accepted"`
	Completed         string `json:"completed"`
	Canceled          string `json:"canceled"`
	PaymentCaptured   string `json:"payment_captured"`
	GatewayAuthorized string `json:"gateway_authorized"`
	GatewayCaptured   string `json:"gateway_captured"`
	GatewayVoided     string `json:"gateway_voided"`
	Returned          string `json:"returned"`
	GatewayRefunded   string `json:"gateway_refunded"`
}

// UnitsReport has sums over all products.
type UnitsReport struct {
	Initial  int64 `json:"initial"`
	Sold     int64 `json:"sold"`
	Returned int64 `json:"returned"`
	OnHand   int64 `json:"on_hand"`
}

// PlatformReport compares what the data platform should have with what it has.
type PlatformReport struct {
	Expected   int   `json:"expected"`
	Received   int   `json:"received"`
	Duplicates int64 `json:"duplicates_ignored"`
}

// NotifyReport compares the messages that customers should have with those sent.
type NotifyReport struct {
	Expected int `json:"expected"`
	Sent     int `json:"sent"`
}

// EventsReport is the traffic behind it all.
type EventsReport struct {
	Emitted      int64 `json:"emitted"`
	Published    int64 `json:"published"`
	Handled      int64 `json:"handled"`
	Duplicates   int64 `json:"duplicates_ignored"`
	Parked       int64 `json:"parked"`
	Unpublished  int64 `json:"unpublished"`
	Lag          int64 `json:"lag"`
	CallsPending int64 `json:"calls_pending"`
}

// LatencyReport is the time from acceptance to the end of an order, in milliseconds.
type LatencyReport struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Mismatch is a reference on which two books disagree.
type Mismatch struct {
	Book      string `json:"book"`
	Reference string `json:"reference"`
	Ours      string `json:"ours"`
	Theirs    string `json:"theirs"`
}

// mismatchesMax bounds the mismatches that a report lists; the rest is counted.
const mismatchesMax = 200
