package settlepgx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/settledev/settle/driver/internal/secure"
	"github.com/settledev/settle/sqlstore"
)

// ErrCredentials says that the server refused who we are, or does not let us use the database.
var ErrCredentials = errors.New("the server refused the credentials")

// ErrTLS says that one side does not vouch for the other, or does not speak TLS, or that a file of the URL is not
// usable.
var ErrTLS = secure.ErrTLS

// ErrPooler says that the URL leads to a pooler, which refuses the settings of our sessions: set Config.Pooler.
var ErrPooler = errors.New("the URL leads to a pooler, and nobody said so")

// ErrNoDatabase says that the server has no such database.
var ErrNoDatabase = errors.New("there is no such database")

// classify names the errors that somebody has to act upon, by the codes of PostgreSQL's appendix A.
func classify(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		if e.Routine == "RevalidateCachedQuery" { // A statement that was prepared before a migration: prepare it again.
			return sqlstore.ErrConflict
		}
		return classifyCode(e.Code)
	}
	var op *net.OpError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &op), errors.As(err, &connect), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed), pgconn.SafeToRetry(err), closed(err):
		return sqlstore.ErrUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return sqlstore.ErrUnavailable // The store's own limit of a transaction: the server hangs.
	}
	return nil
}

// closed knows pgx's own word for it, which is no value.
func closed(err error) bool { return err != nil && strings.Contains(err.Error(), "conn closed") }

func classifyCode(code string) error {
	switch code {
	case "40001", "40P01", "55P03": // serialisation, deadlock, lock not available
		return sqlstore.ErrConflict
	case "26000": // A pooler gave us another session, which has not prepared the statement.
		return sqlstore.ErrConflict
	case "23505":
		return sqlstore.ErrDuplicate
	case "53100":
		return sqlstore.ErrDiskFull
	case "58030":
		return sqlstore.ErrIO
	case "XX001", "XX002":
		return sqlstore.ErrCorrupt
	case "28000", "28P01", "42501":
		return ErrCredentials
	case "3D000":
		return ErrNoDatabase
	case "57014", "25P03", "25P04": // cancelled, or ended by one of the server's own timeouts
		return sqlstore.ErrUnavailable
	case "25006": // read only: a failover is under way, or this is a standby
		return sqlstore.ErrUnavailable
	}
	if strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "53") {
		return sqlstore.ErrUnavailable // connections, shutdown, too many of something
	}
	return nil
}

// openError is an error of the first connection, which TLS may have refused for good.
func openError(err error) error {
	if err != nil && strings.Contains(err.Error(), "server refused TLS connection") { // pgx has no value for it.
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	if refusal := fileError(err); refusal != nil {
		return refusal
	}
	if refusal := secure.Refusal(err); refusal != nil {
		return refusal
	}
	if kind := poolersOwn(err); kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return classified(err)
}

// poolersOwn names what PgBouncer says at the beginning of a session: its code for all of it, also for what it hands on
// of the server, is that of a broken protocol.
func poolersOwn(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || e.Code != "08P01" {
		return nil
	}
	is := func(begin, end string) bool {
		return strings.HasPrefix(e.Message, begin) && strings.HasSuffix(e.Message, end)
	}
	switch {
	case is("unsupported startup parameter", ""):
		return ErrPooler
	case is("no such database", ""), is("database ", "does not exist"):
		return ErrNoDatabase
	case is("no such user", ""), is("role ", "does not exist"), is("password authentication failed", ""):
		return ErrCredentials
	}
	return nil
}

// fileError is the error of a file that a URL names, without the URL; nil when it is another error.
func fileError(err error) error {
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%w: %w", ErrTLS, file)
	}
	return nil
}

func classified(err error) error {
	if kind := classify(err); kind != nil && !errors.Is(err, kind) {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}
