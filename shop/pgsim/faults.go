package pgsim

import (
	"time"

	"github.com/settledev/settle/shop/faults"
)

// Defaults of the faults that take time.
const (
	LateApprovalDelayDefault = 10 * time.Second
	WebhookLateDelayDefault  = 30 * time.Second
)

// Faults are what this gateway does wrong on purpose. All are decided by the seed and the reference,
// so that a run repeats. The zero Faults is a gateway without any.
type Faults struct {
	faults.Transport
	// DeclinePercent of the references are declined with CARD_DECLINED.
	DeclinePercent float64 `json:"declinePercent"`
	// CaptureRefusalPercent of the references are authorized, but never captured: CAPTURE_REFUSED. A
	// refusal is durable.
	CaptureRefusalPercent float64 `json:"captureRefusalPercent"`
	// LateApprovalPercent of the references that are not declined are answered 202 PENDING, and
	// approved LateApprovalDelay later unless they are voided before.
	LateApprovalPercent float64 `json:"lateApprovalPercent"`
	// LateApprovalDelay is how late. Default 10s.
	LateApprovalDelay faults.Duration `json:"lateApprovalDelay"`
	// WebhookDuplicatePercent of the webhooks are sent twice, with the same id.
	WebhookDuplicatePercent float64 `json:"webhookDuplicatePercent"`
	// WebhookLatePercent of the webhooks are first sent after WebhookLateDelay.
	WebhookLatePercent float64 `json:"webhookLatePercent"`
	// WebhookLateDelay is how late. Default 30s.
	WebhookLateDelay faults.Duration `json:"webhookLateDelay"`
}

// withDefaults returns the faults with their delays, or an error that names what is out of range.
func (f Faults) withDefaults() (Faults, error) {
	if f.LateApprovalDelay == 0 {
		f.LateApprovalDelay = faults.Duration(LateApprovalDelayDefault)
	}
	if f.WebhookLateDelay == 0 {
		f.WebhookLateDelay = faults.Duration(WebhookLateDelayDefault)
	}
	for _, p := range []struct {
		name  string
		value float64
	}{
		{"declinePercent", f.DeclinePercent},
		{"captureRefusalPercent", f.CaptureRefusalPercent},
		{"lateApprovalPercent", f.LateApprovalPercent},
		{"webhookDuplicatePercent", f.WebhookDuplicatePercent},
		{"webhookLatePercent", f.WebhookLatePercent},
	} {
		if err := faults.CheckPercent(p.name, p.value); err != nil {
			return f, err
		}
	}
	if err := f.LateApprovalDelay.Check("lateApprovalDelay"); err != nil {
		return f, err
	}
	if err := f.WebhookLateDelay.Check("webhookLateDelay"); err != nil {
		return f, err
	}
	return f, f.Check()
}

// hit reports whether reference has the fault.
func (f *Faults) hit(percent float64, what, reference string) bool {
	return percent > 0 && faults.Hit(f.Seed, percent, what, reference)
}
