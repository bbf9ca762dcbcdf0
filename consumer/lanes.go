package consumer

import (
	"sync"
	"sync/atomic"

	"github.com/settledev/settle/deadletter"
)

// lanes knows which lanes of the group have letters, so that an event of such a lane is parked behind
// them instead of being handled before them.
//
// What must hold: when a reader looks at a lane of its own partition and finds it absent, the store has
// no letter of that lane. (Present though empty is harmless: the event is parked, and a letter that
// waits behind nothing becomes its lane's head, see deadletter.Store.Park.) Why it holds:
//
//  1. Only the reader that owns a lane's partition parks letters in it: a broker keeps one key in one
//     partition, parking and storing the position with the reader's fence are one transaction, and a
//     reader that was fenced cannot commit it.
//  2. A reader loads the lanes after it has raised the fence and before it handles anything: whatever
//     earlier owners parked, in this process or another, is then committed and seen, and from then on
//     none of them can add to it.
//  3. A reader's own letters are announced by begin before their transaction starts and stay announced
//     if it fails: there is no moment at which a letter is committed and its lane absent.
//  4. A lane is dropped only by drop, after the store was asked and had no letter of it, and only if no
//     park was open when the question was put, none is open now, and none has begun in between (the
//     generation is unchanged). Parks of this process therefore came wholly before the question, which
//     saw them, or come wholly after the drop, which then does not matter as begin adds the lane again.
//     Loading counts as a begin, so that letters parked elsewhere before this process took the partition
//     cannot be dropped by a question that was put earlier.
//
// Removing letters needs no announcement: it only makes a present lane stale, and the store alone decides
// what is head. So there is no race between an append and the removal of the last letter: whichever
// transaction commits second sees the other.
type lanes struct {
	mu      sync.Mutex
	entries map[deadletter.Lane]*lane
	gen     uint64
	letters int // an estimate; the sweep corrects it

	// any is the number of entries, for readers that have nothing parked: they take no lock.
	any atomic.Int64
}

type lane struct {
	gen  uint64 // of the last begin or load
	open int    // parks whose transaction has not ended
}

func newLanes() *lanes { return &lanes{entries: map[deadletter.Lane]*lane{}} }

// has reports whether events of the lane must be parked.
func (s *lanes) has(l deadletter.Lane) bool {
	if s.any.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[l] != nil
}

// begin announces that a transaction is about to park a letter; end it with end.
func (s *lanes) begin(l deadletter.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touch(l).open++
}

// end tells that the transaction announced by one begin for each of the lanes is over, and how many
// letters it parked.
func (s *lanes) end(opened []deadletter.Lane, parked int) {
	if len(opened) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range opened {
		s.entries[l].open--
	}
	s.letters += parked
}

// load adds what the store has.
func (s *lanes) load(all []deadletter.Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range all {
		s.touch(l)
	}
}

func (s *lanes) touch(l deadletter.Lane) *lane {
	e := s.entries[l]
	if e == nil {
		e = &lane{}
		s.entries[l] = e
		s.any.Add(1)
	}
	s.gen++
	e.gen = s.gen
	return e
}

// question returns the generation of a lane that could be dropped if the store had no letter of it.
func (s *lanes) question(l deadletter.Lane) (gen uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[l]
	if e == nil || e.open > 0 {
		return 0, false
	}
	return e.gen, true
}

// questions is question for every lane.
func (s *lanes) questions() map[deadletter.Lane]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[deadletter.Lane]uint64, len(s.entries))
	for l, e := range s.entries {
		if e.open == 0 {
			all[l] = e.gen
		}
	}
	return all
}

// drop forgets a lane that the store answered to have no letters, unless something was parked since the
// question.
func (s *lanes) drop(l deadletter.Lane, gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[l]; e != nil && e.open == 0 && e.gen == gen {
		delete(s.entries, l)
		s.any.Add(-1)
	}
}

// removed counts one letter less.
func (s *lanes) removed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.letters = max(0, s.letters-1)
}

func (s *lanes) setLetters(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.letters = n
}

// room reports whether n more letters are allowed.
func (s *lanes) room(n, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.letters+n <= limit
}

func (s *lanes) size() (lanes, letters int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), s.letters
}
