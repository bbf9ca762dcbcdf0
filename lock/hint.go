package lock

import (
	"context"
	"time"
)

// Hint says that somebody probably does something already. It saves work; it makes nothing safe.
type Hint struct {
	Name string
	// Token tells this hint from every other one of the name. Nobody can guess it.
	Token string
}

// Hints saves work: of many that would do the same, most learn in time that one is on it. Two may be told
// to go ahead, after a failover, a restart without persistence, or a pause longer than the time to live;
// there is no fence, so nobody can refuse the late one. Use it where doing a thing twice costs time only,
// such as filling a cache. For everything else there is [Leases].
type Hints interface {
	// TryOnce leaves a hint that lasts ttl, or reports false when there is one. It does not wait. With an
	// error, which may hide a hint that was left, do the work: a missing hint must stop nobody.
	TryOnce(ctx context.Context, name string, ttl time.Duration) (h Hint, ok bool, err error)
	// Drop takes the hint away when its token is still the one kept, in one atomic step. Another's stays.
	Drop(ctx context.Context, h Hint) error
}

// CheckHint refuses what TryOnce must refuse, with an error that wraps ErrLimit: for implementations.
func CheckHint(name string, ttl time.Duration) error {
	if err := checkName(name); err != nil {
		return err
	}
	return CheckTTL(ttl)
}
