package app

import (
	"strings"
	"testing"

	"github.com/settledev/settle"
	"github.com/settledev/settle/consumer"
)

// TestGroupWithoutPartitions wants a group without partitions to be neither ready nor quiet, unless others have them
// all: that is known, and not guessed from how long it has been so.
func TestGroupWithoutPartitions(t *testing.T) {
	flows, waits := consumer.PartitionStats{Name: "p0"}, consumer.PartitionStats{Name: "p1", Lag: 3, Paused: "no database"}
	for name, tt := range map[string]struct {
		group consumer.Stats
		says  string // why it is not ready
		lag   int64
	}{
		"just started":  {consumer.Stats{}, "no partition yet", 1},
		"standby":       {consumer.Stats{Standby: true}, "", 0},
		"flows":         {consumer.Stats{Partitions: []consumer.PartitionStats{flows}}, "", 0},
		"waits":         {consumer.Stats{Partitions: []consumer.PartitionStats{waits}, Lag: 3}, "no database", 3},
		"flows in part": {consumer.Stats{Partitions: []consumer.PartitionStats{waits, flows}, Lag: 3}, "", 3},
	} {
		err := groupReady(tt.group)
		if ready := tt.says == ""; ready != (err == nil) || !ready && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: ready is %v, want %q", name, err, tt.says)
		}
		if got := trafficOf(settle.Stats{Groups: []consumer.Stats{tt.group}}, 0, 0).Lag; got != tt.lag {
			t.Errorf("%s: lag %d, want %d", name, got, tt.lag)
		}
	}
}
