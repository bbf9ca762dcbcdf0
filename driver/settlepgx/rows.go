package settlepgx

import (
	"database/sql"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// rows are pgx's, read the way the store reads: identities as bytes, and what is common without reflection.
type rows struct {
	pgx.Rows

	end    func() error
	closed bool
	err    error
}

// Close returns what went wrong on the way, also after the last row: a statement outside a transaction is
// committed only then.
func (r *rows) Close() error {
	if r.closed {
		return r.err
	}
	r.closed = true
	r.Rows.Close()
	r.err = r.Err()
	if r.end != nil {
		if err := r.end(); r.err == nil {
			r.err = err
		}
	}
	return r.err
}

// Scan reads the row.
func (r *rows) Scan(dest ...any) error {
	fields, values := r.FieldDescriptions(), r.RawValues()
	if len(dest) != len(values) {
		return fmt.Errorf("%d columns, %d destinations", len(values), len(dest))
	}
	for i, d := range dest {
		if values[i] == nil {
			if scanNull(d) {
				continue
			}
		} else if fields[i].Format == pgtype.BinaryFormatCode && scanBinary(fields[i].DataTypeOID, values[i], d) {
			continue
		}
		if raw, ok := d.(*sql.RawBytes); ok { // Nothing points to it, so it is the driver's bytes.
			d = (*[]byte)(raw)
		}
		if err := r.Conn().TypeMap().Scan(fields[i].DataTypeOID, fields[i].Format, values[i], d); err != nil {
			return fmt.Errorf("column %s: %w", fields[i].Name, err)
		}
	}
	return nil
}

// scanNull reads a NULL into bytes; false leaves it to pgx, which refuses what cannot be NULL.
func scanNull(dest any) bool {
	switch d := dest.(type) {
	case *sql.RawBytes:
		*d = nil
		return true
	case *[]byte:
		*d = nil
		return true
	}
	return false
}

// scanBinary reads the types that the store's own tables have; false leaves the column to pgx.
func scanBinary(oid uint32, v []byte, dest any) bool {
	switch oid {
	case pgtype.Int8OID, pgtype.Int4OID, pgtype.Int2OID:
		return scanInt(v, dest)
	case pgtype.TextOID, pgtype.VarcharOID:
		if s, ok := dest.(*string); ok {
			if *s != string(v) { // Types, topics and producers are often those of the row before.
				*s = string(v)
			}
			return true
		}
	case pgtype.ByteaOID, pgtype.UUIDOID:
		switch d := dest.(type) {
		case *sql.RawBytes:
			*d = v
			return true
		case *[]byte:
			*d = append([]byte{}, v...)
			return true
		}
	case pgtype.BoolOID:
		if b, ok := dest.(*bool); ok && len(v) == 1 {
			*b = v[0] != 0
			return true
		}
	}
	return false
}

func scanInt(v []byte, dest any) bool {
	var n int64
	switch len(v) {
	case 8:
		n = int64(binary.BigEndian.Uint64(v))
	case 4:
		n = int64(int32(binary.BigEndian.Uint32(v)))
	case 2:
		n = int64(int16(binary.BigEndian.Uint16(v)))
	default:
		return false
	}
	switch d := dest.(type) {
	case *int64:
		*d = n
	case *int:
		*d = int(n)
	default:
		return false
	}
	return true
}
