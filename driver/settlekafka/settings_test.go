package settlekafka

import (
	"testing"
	"time"

	"github.com/settledev/settle/internal/server"
)

func TestSettings(t *testing.T) {
	b := open(t, server.Shared(t, server.Kafka), Config{Prefix: prefix(), Partitions: 3})
	if all, err := b.Settings(t.Context()); len(all) != 0 || err != nil {
		t.Fatalf("settings of topics that there are not: %+v, %v", all, err)
	}
	configs := map[string]*string{
		"cleanup.policy": new("compact,delete"), "retention.ms": new("60000"), "retention.bytes": new("1048576"),
		"unclean.leader.election.enable": new("true"), "min.insync.replicas": new("2"),
	}
	if _, err := b.admin.CreateTopic(t.Context(), 5, 1, configs, b.cfg.topicName("odd")); err != nil {
		t.Fatal(err)
	}
	forever := map[string]*string{"retention.ms": new("-1")}
	if _, err := b.admin.CreateTopic(t.Context(), 3, 1, forever, b.cfg.topicName("orders")); err != nil {
		t.Fatal(err)
	}
	want := []Settings{
		{
			Topic: "odd", Partitions: 5, Replicas: 1, InSyncMin: 2, Compact: true,
			Retention: time.Minute, BytesMax: 1 << 20, Unclean: true,
		},
		{Topic: "orders", Partitions: 3, Replicas: 1, InSyncMin: 1},
	}
	all, err := b.Settings(t.Context())
	for n := 0; n < 100 && err == nil && len(all) < len(want); n++ { // The broker may be a moment behind.
		if err = pause(t.Context(), topicPause); err == nil {
			all, err = b.Settings(t.Context())
		}
	}
	if err != nil || len(all) != len(want) {
		t.Fatalf("settings: %+v, %v", all, err)
	}
	for i := range want {
		if all[i] != want[i] {
			t.Errorf("got %+v, want %+v", all[i], want[i])
		}
	}
}
