package envoy

// succession decides which Envoys run. Usually it is one. At a hot restart a
// successor starts beside it, takes over the listening sockets, and the former
// one ends the answers it has begun. There are never three: an Envoy that hands
// over ends the one it took over from, and cuts what that still answers. So a
// request that comes too early waits.
type succession struct {
	current bool // serves; false while it is dead and waits for its next start
	next    bool // starts, and will take over
	former  bool // has handed over, and ends its answers
	asked   bool // a hot restart waits for its turn
}

type event int

const (
	restartAsked event = iota
	currentRuns        // for the first time, or again after its death
	currentDied
	nextServes // the successor has the sockets
	nextFailed // it ended, or did not serve in time
	formerGone
)

// step is what has to be done because of an event.
type step int

const (
	nothing     step = iota
	startNext        // a successor of the current one
	promote          // the successor is the current one, which is the former one
	startAgain       // the current one, after a pause
	replaceDead      // startAgain, and end the successor: it has nobody to take over from
)

func (s *succession) on(e event) step {
	switch e {
	case restartAsked:
		s.asked = true
	case currentRuns:
		s.current = true
	case nextServes:
		s.next, s.former = false, true
		return promote
	case nextFailed:
		s.next = false
	case formerGone:
		s.former = false
	case currentDied:
		s.current = false
		if s.next {
			s.next, s.asked = false, true
			return replaceDead
		}
		return startAgain
	}
	if s.asked && s.current && !s.next && !s.former {
		s.asked, s.next = false, true
		return startNext
	}
	return nothing
}
