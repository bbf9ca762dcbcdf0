package doctor_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/settledev/settle/broker"
	"github.com/settledev/settle/cmd/settle/internal/app"
	"github.com/settledev/settle/cmd/settle/internal/doctor"
	"github.com/settledev/settle/driver/settlekafka"
	"github.com/settledev/settle/internal/server"
)

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

func TestKafkaTopic(t *testing.T) {
	good := settlekafka.Settings{Topic: "orders", Partitions: 8, Replicas: 3, InSyncMin: 2}
	for name, tt := range map[string]struct {
		change func(s *settlekafka.Settings)
		level  doctor.Level
		want   string // in the only finding; none when empty
	}{
		"good":         {func(*settlekafka.Settings) {}, "", ""},
		"a week":       {func(s *settlekafka.Settings) { s.Retention = 168 * time.Hour }, "", ""},
		"stuck":        {func(s *settlekafka.Settings) { s.InSyncMin = 4 }, doctor.Fail, "4 of 3: nothing can be published"},
		"one replica":  {func(s *settlekafka.Settings) { s.Replicas, s.InSyncMin = 1, 1 }, doctor.Warn, "1 replica"},
		"one copy":     {func(s *settlekafka.Settings) { s.InSyncMin = 1 }, doctor.Warn, "set min.insync.replicas=2"},
		"none to lose": {func(s *settlekafka.Settings) { s.InSyncMin = 3 }, doctor.Warn, "while one is away"},
		"compacted":    {func(s *settlekafka.Settings) { s.Compact = true }, doctor.Warn, "cleanup.policy=delete"},
		"short":        {func(s *settlekafka.Settings) { s.Retention = time.Hour }, doctor.Warn, "set retention.ms=604800000"},
		"small":        {func(s *settlekafka.Settings) { s.BytesMax = 1 << 20 }, doctor.Warn, "retention.bytes=-1"},
		"unclean":      {func(s *settlekafka.Settings) { s.Unclean = true }, doctor.Warn, "unclean.leader.election.enable=false"},
		"partitions":   {func(s *settlekafka.Settings) { s.Partitions = 4 }, doctor.Warn, "has 4 partitions, configured are 8"},
	} {
		s := good
		tt.change(&s)
		found := doctor.KafkaTopic("broker", &s, 8)
		switch {
		case tt.want == "" && len(found) > 0:
			t.Errorf("%s: %v", name, found)
		case tt.want == "":
		case len(found) != 1 || found[0].Level != tt.level || !strings.Contains(found[0].String(), tt.want):
			t.Errorf("%s: got %v, want %q", name, found, tt.want)
		}
	}
}

// TestBrokerKafka has a cluster whose defaults lose events.
func TestBrokerKafka(t *testing.T) {
	s := server.Start(t, server.Kafka, server.Options{Settings: map[string]string{
		"log.cleanup.policy": "compact,delete", "log.retention.ms": "3600000", "unclean.leader.election.enable": "true",
	}})
	quiet := slog.New(slog.DiscardHandler)
	b, err := settlekafka.Open(t.Context(), s.URL(), settlekafka.Config{Prefix: "shop.", Partitions: 3, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Subscribe(t.Context(), broker.Subscription{Group: "billing", Topics: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	found := doctor.Broker(t.Context(), "broker", s.URL(), app.Carrier{Prefix: "shop.", Partitions: 4, Logger: quiet})
	if doctor.Failed(found) {
		t.Errorf("failed: %v", found)
	}
	var lines strings.Builder
	for _, f := range found {
		lines.WriteString(f.String() + "\n")
	}
	for _, want := range []string{
		"answers", "1 replica", "is compacted", "keeps events for 1h0m0s", "unclean", "has 3 partitions, configured are 4", "1 topics were looked at",
	} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("no %q in:\n%s", want, lines.String())
		}
	}
}
