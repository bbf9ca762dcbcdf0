package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/shopspring/decimal"
)

// GBP is the currency of the bundled catalogue.
const GBP = "GBP"

// ErrMoney says that an amount is not one: no decimal, too many digits, or an unknown currency.
var ErrMoney = errors.New("not an amount of money")

// Money is an exact amount in the minor unit of its currency (ISO 4217). The zero Money is zero of no
// currency and adds to any.
type Money struct {
	minor    int64
	currency string
}

// minorDigits returns the digits of the currency's minor unit.
func minorDigits(currency string) (int32, bool) {
	switch currency {
	case "GBP", "EUR", "USD":
		return 2, true
	case "JPY":
		return 0, true
	}
	return 0, false
}

// NewMoney returns an amount of minor units: 1250 of GBP is 12.50.
func NewMoney(minor int64, currency string) Money { return Money{minor, currency} }

// Price is a decimal unit price, which may be finer than the currency's minor unit.
type Price = decimal.Decimal

// ParsePrice reads a decimal unit price such as "0.19". A text of more than 40 bytes is refused.
func ParsePrice(s string) (Price, error) {
	if len(s) > 40 {
		return Price{}, fmt.Errorf("%w: a price of %d bytes", ErrMoney, len(s))
	}
	p, err := decimal.NewFromString(s)
	if err != nil || p.Exponent() > 18 || p.Exponent() < -100 {
		return Price{}, fmt.Errorf("%w: price %.40q", ErrMoney, s)
	}
	return p, nil
}

// LineAmount returns quantity x unit price, rounded half away from zero to the currency's minor unit.
func LineAmount(quantity int64, unit Price, currency string) (Money, error) {
	return moneyOf(unit.Mul(decimal.NewFromInt(quantity)), currency)
}

// ParseMoney reads a decimal such as "12.50" exactly; more digits than the currency has are refused.
func ParseMoney(amount, currency string) (Money, error) {
	d, err := decimal.NewFromString(amount)
	if err != nil {
		return Money{}, fmt.Errorf("%w: %.40q", ErrMoney, amount)
	}
	m, err := moneyOf(d, currency)
	if err != nil {
		return Money{}, err
	}
	if !m.Decimal().Equal(d) {
		return Money{}, fmt.Errorf("%w: %.40q has more digits than %s", ErrMoney, amount, currency)
	}
	return m, nil
}

func moneyOf(d decimal.Decimal, currency string) (Money, error) {
	digits, ok := minorDigits(currency)
	if !ok {
		return Money{}, fmt.Errorf("%w: currency %.10q is not known", ErrMoney, currency)
	}
	// A huge exponent would make Round allocate its size: refuse it by its digits first.
	if d.Exponent() > 18 || d.Exponent() < -100 {
		return Money{}, fmt.Errorf("%w: exponent %d is out of range", ErrMoney, d.Exponent())
	}
	minor := d.Shift(digits).Round(0)
	if minor.Abs().GreaterThan(decimal.NewFromInt(math.MaxInt64 / 4)) {
		return Money{}, fmt.Errorf("%w: amount is too large", ErrMoney)
	}
	return Money{minor.IntPart(), currency}, nil
}

// Minor returns the amount in minor units.
func (m Money) Minor() int64 { return m.minor }

// Currency returns the currency's code.
func (m Money) Currency() string { return m.currency }

// Decimal returns the amount in major units.
func (m Money) Decimal() decimal.Decimal {
	digits, _ := minorDigits(m.currency)
	return decimal.New(m.minor, -digits)
}

// Amount returns the amount in major units with all digits of the currency: "12.50".
func (m Money) Amount() string {
	digits, _ := minorDigits(m.currency)
	return m.Decimal().StringFixed(digits)
}

// String returns amount and currency.
func (m Money) String() string { return m.Amount() + " " + m.currency }

// Add returns m + n. It panics when the currencies differ: a mistake in the program.
func (m Money) Add(n Money) Money {
	if m.currency != "" && n.currency != "" && m.currency != n.currency {
		panic("contract: adding " + n.currency + " to " + m.currency)
	}
	if m.currency == "" {
		m.currency = n.currency
	}
	m.minor += n.minor
	return m
}

// Neg returns -m.
func (m Money) Neg() Money { return Money{-m.minor, m.currency} }

type moneyJSON struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

// MarshalJSON returns {"amount":"12.50","currency":"GBP"}.
func (m Money) MarshalJSON() ([]byte, error) {
	return json.Marshal(moneyJSON{m.Amount(), m.currency})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *Money) UnmarshalJSON(b []byte) error {
	var j moneyJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if j.Currency == "" && (j.Amount == "0" || j.Amount == "") {
		*m = Money{}
		return nil
	}
	v, err := ParseMoney(j.Amount, j.Currency)
	*m = v
	return err
}
