package settlekafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/driver/internal/secure"
)

var (
	// ErrCredentials says that the cluster refused who we are: mend user, password or mechanism.
	ErrCredentials = errors.New("the cluster refused the credentials")
	// ErrTLS says that one side does not vouch for the other, or does not speak TLS, or that a file of the URL is
	// not usable: mend the certificates or the URL.
	ErrTLS = secure.ErrTLS
	// ErrFenced says that another publisher has taken over the transactional id, and nothing of the call
	// was stored. It comes with [broker.ErrUnavailable]: whoever still owns the shard repeats, and so
	// takes the id back; whoever lost the shard finds that out before it publishes again.
	ErrFenced = errors.New("another publisher took over the transactional id")
	// ErrNoTopic says that a topic does not exist and Config.NoCreateTopics leaves it at that: create it.
	ErrNoTopic = errors.New("topic does not exist")
)

// unavailable makes an error of the cluster one that callers wait out. A context that has ended is its own.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, broker.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// isCredentials reports whether the cluster refused who we are, not what we want.
func isCredentials(err error) bool {
	return errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism) ||
		errors.Is(err, kerr.IllegalSaslState)
}

// isFenced reports whether a newer producer has the transactional id.
func isFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// isGone reports whether a topic is not, or no longer, the one that a client knew.
func isGone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) ||
		errors.Is(err, kerr.InconsistentTopicID)
}

// isForbidden reports whether a topic is refused, whatever the message.
func isForbidden(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.InvalidTopicException)
}

// isCondemned reports whether a batch was refused for the sake of a message in it: which one, is not said.
func isCondemned(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) ||
		errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.InvalidTimestamp)
}

// isRefused reports whether a member is kept out of its group until somebody mends something. From
// anything else its client recovers by joining again.
func isRefused(err error) bool {
	return isCredentials(err) || isForbidden(err) ||
		errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.InvalidGroupID) ||
		errors.Is(err, kerr.InconsistentGroupProtocol) || errors.Is(err, kerr.InvalidSessionTimeout) ||
		errors.Is(err, kerr.FencedInstanceID) || errors.Is(err, kerr.GroupMaxSizeReached)
}

// code returns the cluster's name for an error, such as MESSAGE_TOO_LARGE, or the error's text.
func code(err error) string {
	if k, ok := errors.AsType[*kerr.Error](err); ok {
		return k.Message
	}
	return err.Error()
}
