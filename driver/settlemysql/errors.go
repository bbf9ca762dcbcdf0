package settlemysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/go-sql-driver/mysql"

	"github.com/settledev/settle/driver/internal/secure"
	"github.com/settledev/settle/sqlstore"
)

// ErrCredentials says that the server refused who we are, or does not let us use the database.
var ErrCredentials = errors.New("the server refused the credentials")

// ErrTLS says that one side does not vouch for the other, or does not speak TLS, or that a file of the URL is not
// usable.
var ErrTLS = secure.ErrTLS

// ErrNoDatabase says that the server has no database of the URL's name: make it, see [EnsureDatabase].
var ErrNoDatabase = errors.New("there is no such database")

// classify names the errors that somebody has to act upon. Numbers are those of the servers' error lists.
func classify(err error) error {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch e.Number {
		case 1213, 1205, 3572: // deadlock, lock wait timeout, NOWAIT
			return sqlstore.ErrConflict
		case 1062, 1586: // duplicate entry
			return sqlstore.ErrDuplicate
		case 1021, 1114: // disk full, table full
			return sqlstore.ErrDiskFull
		case 1040, 1053, 1077, 1078, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1317, 1927: // connections, shutdown, killed
			return sqlstore.ErrUnavailable
		case 1290, 1792, 1836: // read only: a failover is under way, or this is a replica
			return sqlstore.ErrUnavailable
		case 1044, 1045, 1698: // access denied
			return ErrCredentials
		case 1049: // unknown database
			return ErrNoDatabase
		}
		return nil
	}
	var op *net.OpError
	switch {
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, &op):
		return sqlstore.ErrUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return sqlstore.ErrUnavailable // The store's own limit of a transaction: the server hangs.
	case secure.Refusal(err) != nil:
		return sqlstore.ErrUnavailable // It had us before: perhaps its certificate is being renewed.
	}
	return nil
}

// openError is an error of the first connection, which TLS may have refused for good.
func openError(err error) error {
	if errors.Is(err, mysql.ErrNoTLS) {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	if refusal := secure.Refusal(err); refusal != nil {
		return refusal
	}
	return classified(err)
}

func classified(err error) error {
	if kind := classify(err); kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}
