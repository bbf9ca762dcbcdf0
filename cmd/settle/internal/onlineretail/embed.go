// Package onlineretail carries one month of a real shop's sales inside the binary, so that
// `settle demo` has real input on any machine, without a download.
//
// It does not clean the data: the dirty rows are part of what the shop must survive. README.md
// has the source and its licence.
package onlineretail

import (
	"bytes"
	"compress/gzip"
	_ "embed" // for the file below
	"io"
)

//go:embed 2010-12.csv.gz
var december2010 []byte

// Open reads December 2010 as plain CSV, its first line the header: 42,481 rows of 2,025 invoices
// in the order of the original file.
func Open() (io.ReadCloser, error) {
	return gzip.NewReader(bytes.NewReader(december2010))
}
