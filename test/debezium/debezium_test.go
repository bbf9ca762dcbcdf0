package debezium_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestEveryEventOnce has writers that begin before there is a connector.
func TestEveryEventOnce(t *testing.T) {
	r := newRig(t)
	w := newWritten()
	if err := r.writer(t.Context(), w, "early", 30, 0); err != nil {
		t.Fatal(err)
	}
	x := r.consume()
	r.deploy(nil)
	var writers errgroup.Group
	for i := range 4 {
		writers.Go(func() error {
			return r.writer(t.Context(), w, fmt.Sprintf("shop-%d", i), 100, time.Millisecond)
		})
	}
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
	r.check(w, x)
}
