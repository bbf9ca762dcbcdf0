package memory_test

import (
	"testing"
	"testing/synctest"

	"github.com/settledev/settle/memory"
	"github.com/settledev/settle/relay/relaytest"
)

// lacks is what RAM cannot do.
var lacks = []string{"Reopen"}

func TestOutbox(t *testing.T) {
	relaytest.Run(t, relaytest.Harness{
		Open: func(*testing.T) relaytest.Store { return memory.New() }, Around: synctest.Test, Lacks: lacks,
	})
}
