package replay

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/settledev/settle/shop/contract"
)

// RowError is a row that cannot be read: it is reported, and the rest of the file goes on.
type RowError struct {
	Line int
	Err  error
}

func (e *RowError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *RowError) Unwrap() error { return e.Err }

// corruptMax bounds the unreadable rows that are kept; a file with more is refused, as it is no such file.
const corruptMax = 1000

// ErrNotRetail says that a file is not the Online Retail CSV.
var ErrNotRetail = errors.New("not an Online Retail file")

// Item is one row of an invoice.
type Item struct {
	Product  string
	Quantity int64
	Price    string // decimal, as the file has it
}

// Invoice is an order, or a return.
type Invoice struct {
	Number   string
	Customer string // empty for a guest
	Return   bool   // its quantities are already negated
	Items    []Item
}

// Product is what the file says of a product.
type Product struct {
	Code  string
	Name  string
	Price string // the last positive one
}

// File is a retail data set by the rules of the replay.
type File struct {
	Rows     int
	Invoices []Invoice // in file order
	Products map[string]*Product
	Corrupt  []*RowError
}

// header is the first line of the file.
const header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"

// Read reads the whole file. Unreadable rows are in Corrupt; an error means that the file as a whole
// cannot be read.
func Read(r io.Reader) (*File, error) {
	c := csv.NewReader(r)
	c.ReuseRecord = true
	c.LazyQuotes = true
	c.FieldsPerRecord = strings.Count(header, ",") + 1
	first, err := c.Read()
	if err != nil || strings.TrimPrefix(strings.Join(first, ","), "\ufeff") != header {
		return nil, fmt.Errorf("replay: first line is not %q: %w", header, errors.Join(ErrNotRetail, err))
	}
	b := builder{file: &File{Products: map[string]*Product{}}, invoices: map[string]int{}, texts: map[string]string{}, seen: map[string]*Product{}}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := c.FieldPos(0)
		if err == nil {
			err = b.add(record)
		}
		var parse *csv.ParseError
		switch {
		case err == nil:
			continue
		case errors.As(err, &parse):
			line, err = parse.StartLine, parse.Err
		case errors.Is(err, errRow):
		default:
			return nil, fmt.Errorf("replay: read: %w", err)
		}
		b.file.Corrupt = append(b.file.Corrupt, &RowError{line, err})
		if len(b.file.Corrupt) > corruptMax {
			return nil, fmt.Errorf("replay: more than %d unreadable rows, the last is %w: %w", corruptMax, b.file.Corrupt[corruptMax], ErrNotRetail)
		}
	}
	return b.file, nil
}

// errRow marks an error of one row.
var errRow = errors.New("unreadable row")

// builder puts rows together. Texts are shared, because half a million rows repeat a few thousand.
type builder struct {
	file     *File
	invoices map[string]int
	texts    map[string]string
	seen     map[string]*Product // every code, known or not
}

func (b *builder) text(s string) string {
	if t, ok := b.texts[s]; ok {
		return t
	}
	s = strings.Clone(s)
	b.texts[s] = s
	return s
}

func (b *builder) add(record []string) error {
	number, code, price := strings.TrimSpace(record[0]), strings.TrimSpace(record[1]), strings.TrimSpace(record[5])
	quantity, err := strconv.ParseInt(strings.TrimSpace(record[3]), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: quantity %.40q: %w", errRow, record[3], err)
	}
	unit, err := parsePrice(price)
	if err != nil {
		return fmt.Errorf("%w: %w", errRow, err)
	}
	if number == "" || code == "" {
		return fmt.Errorf("%w: no invoice number or no stock code", errRow)
	}
	customer, err := customerOf(record[6])
	if err != nil {
		return fmt.Errorf("%w: %w", errRow, err)
	}
	b.file.Rows++
	i, ok := b.invoices[number]
	if !ok {
		number = strings.Clone(number)
		i = len(b.file.Invoices)
		b.invoices[number] = i
		b.file.Invoices = append(b.file.Invoices, Invoice{Number: number, Customer: b.text(customer), Return: number[0] == 'C'})
	}
	inv := &b.file.Invoices[i]
	b.list(inv, code, record[2], quantity, price, unit)
	if inv.Return {
		quantity = -quantity
	}
	inv.Items = append(inv.Items, Item{Product: b.text(code), Quantity: quantity, Price: b.text(price)})
	return nil
}

// list applies the rule of the catalogue: a product is known by a row with positive quantity and price in
// an invoice whose number is all digits, or by any return. Its price is the last positive one of the file.
func (b *builder) list(inv *Invoice, code, name string, quantity int64, price string, unit contract.Price) {
	p := b.seen[code]
	if p == nil {
		code = b.text(code)
		p = &Product{Code: code, Price: "0"}
		b.seen[code] = p
	}
	if unit.IsPositive() {
		p.Price = b.text(price)
	}
	if name = strings.TrimSpace(name); name != "" {
		p.Name = b.text(name)
	}
	if inv.Return || digits(inv.Number) && quantity > 0 && unit.IsPositive() {
		b.file.Products[p.Code] = p
	}
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// customerOf returns the customer's number: the file writes 17850.0.
func customerOf(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != float64(int64(f)) || f < 0 {
		return "", fmt.Errorf("customer %.40q is not a number", s)
	}
	return strconv.FormatInt(int64(f), 10), nil
}

func parsePrice(s string) (contract.Price, error) {
	p, err := contract.ParsePrice(s)
	if err != nil {
		return p, fmt.Errorf("unit price %.40q: %w", s, err)
	}
	return p, nil
}

// Code returns the refusal that the shop must give an order, or "" when it must accept it: the checks in
// the order of the specification.
func (f *File) Code(inv *Invoice) string {
	if len(inv.Items) == 0 {
		return "no-items"
	}
	var total contract.Money
	for _, it := range inv.Items {
		if it.Quantity <= 0 {
			return "quantity-not-positive"
		}
	}
	for _, it := range inv.Items {
		if strings.HasPrefix(it.Price, "-") {
			return "price-negative"
		}
	}
	for _, it := range inv.Items {
		if f.Products[it.Product] == nil {
			return "unknown-product"
		}
	}
	for _, it := range inv.Items {
		total = total.Add(it.amount())
	}
	if total.Minor() <= 0 {
		return "total-not-positive"
	}
	return ""
}

func (it Item) amount() contract.Money {
	unit, err := parsePrice(it.Price)
	if err != nil {
		return contract.Money{}
	}
	m, err := contract.LineAmount(it.Quantity, unit, contract.GBP)
	if err != nil {
		return contract.Money{}
	}
	return m
}

// Amount returns the sum of an invoice's rounded line amounts.
func (inv *Invoice) Amount() contract.Money {
	total := contract.NewMoney(0, contract.GBP)
	for _, it := range inv.Items {
		total = total.Add(it.amount())
	}
	return total
}

// Stock returns the units of each stocked product that the valid orders need, or percent % of them rounded
// down.
func (f *File) Stock(percent int64) map[string]int64 {
	need := map[string]int64{}
	for code := range f.Products {
		if contract.Stocked(code) {
			need[code] = 0
		}
	}
	for i := range f.Invoices {
		inv := &f.Invoices[i]
		if inv.Return || f.Code(inv) != "" {
			continue
		}
		for _, it := range inv.Items {
			if contract.Stocked(it.Product) {
				need[it.Product] += it.Quantity
			}
		}
	}
	for code, n := range need {
		need[code] = n * percent / 100
	}
	return need
}
