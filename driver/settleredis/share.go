package settleredis

import "slices"

// seat is a member of a group in the eyes of all.
type seat struct {
	id     string
	join   uint64
	topics []string
	until  int64 // when its place ends unless it is renewed, by the server's clock
}

// holding is a log and the member that has its lease, or "".
type holding struct {
	log   string
	owner string
}

// share says which member is to have each log: the one that has it, unless that has left or has more than
// its share. All members come to the same result from the same state, and a log moves only for that.
func share(seats []seat, logs []holding) map[string]string {
	slices.SortFunc(seats, func(a, b seat) int {
		if a.join < b.join {
			return -1
		}
		return 1
	})
	slices.SortFunc(logs, func(a, b holding) int {
		if a.log < b.log {
			return -1
		}
		return 1
	})
	owners, load := map[string]string{}, map[string]int{}
	for _, l := range logs {
		if slices.ContainsFunc(seats, func(s seat) bool { return s.id == l.owner && s.wants(l.log) }) {
			owners[l.log] = l.owner
			load[l.owner]++
		}
	}
	for _, l := range logs {
		if owners[l.log] == "" {
			if to := idlest(seats, l.log, load); to != "" {
				owners[l.log] = to
				load[to]++
			}
		}
	}
	for moved := true; moved; { // Each move makes two loads more equal, so it ends.
		moved = false
		for _, l := range logs {
			from, to := owners[l.log], idlest(seats, l.log, load)
			if from != "" && load[to]+1 < load[from] {
				owners[l.log], moved = to, true
				load[from]--
				load[to]++
			}
		}
	}
	return owners
}

func (s seat) wants(log string) bool { return slices.Contains(s.topics, topicOf(log)) }

// idlest returns the member with the fewest logs among those that want this one; the eldest of several.
func idlest(seats []seat, log string, load map[string]int) string {
	best := ""
	for _, s := range seats {
		if s.wants(log) && (best == "" || load[s.id] < load[best]) {
			best = s.id
		}
	}
	return best
}
