package relayd

import (
	"context"
	"os"
	"sync"

	"github.com/settledev/settle/cmd/settle/internal/doctor"
)

// Check looks at everything that a file names, and returns all that it finds, not only the first thing.
func Check(ctx context.Context, path string) []doctor.Finding {
	b, err := os.ReadFile(path)
	if err != nil {
		return []doctor.Finding{{Level: doctor.Fail, Of: "file", What: err.Error(), Do: "name the file"}}
	}
	c, problems := Parse(b, os.LookupEnv)
	var all []doctor.Finding
	for _, p := range problems {
		all = append(all, doctor.Finding{Level: doctor.Fail, Of: "file", What: p.Error(), Do: "settle relay schema says what it may have"})
	}
	if len(problems) == 0 {
		all = append(all, doctor.Finding{Level: doctor.OK, Of: "file", What: path + " can be read"})
	}
	var wg sync.WaitGroup
	found := make([][]doctor.Finding, len(c.Sources)+len(c.Sinks))
	for i, s := range c.Sources {
		wg.Go(func() { found[i] = s.look(ctx) })
	}
	for i, s := range c.Sinks {
		wg.Go(func() {
			if len(s.check()) == 0 {
				found[len(c.Sources)+i] = doctor.Broker(ctx, "sink "+s.Name, s.Broker, s.carrier())
			}
		})
	}
	wg.Wait()
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// look looks at a source's database, also when something else of the source is wrong.
func (s *Source) look(ctx context.Context) []doctor.Finding {
	d, err := s.database()
	if err != nil || d.Dialect == "sqlite" {
		return nil // It has been told.
	}
	d.Name = "source " + s.Name
	cfg := doctor.Config{Relay: true, WAL: s.Mode == "wal", Slot: s.Slot, Publication: s.Publication}
	if s.Layout == "debezium" {
		cfg.Table = s.Table
	}
	all := doctor.Database(ctx, d, cfg)
	if doctor.Failed(all) || s.Layout == "debezium" {
		return all
	}
	return append(all, doctor.Topics(ctx, d)...)
}
