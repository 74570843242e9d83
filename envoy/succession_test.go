package envoy

import (
	"testing"

	"pgregory.net/rapid"
)

// A world of processes that obeys every step, and in which anything that can
// happen next may happen.
func TestSuccession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s succession
		var current, follower, leaving bool
		wanted := false // something was asked for since the last successor started
		apply := func(e event) {
			switch s.on(e) {
			case startNext:
				if !current || follower || leaving {
					t.Fatalf("a successor starts: current %v, follower %v, leaving %v", current, follower, leaving)
				}
				follower, wanted = true, false
			case promote:
				if !follower || leaving {
					t.Fatalf("promoted: follower %v, leaving %v", follower, leaving)
				}
				current, follower, leaving = true, false, true
			case replaceDead:
				if !follower {
					t.Fatal("there is no successor to end")
				}
				follower, wanted = false, true
			case nothing, startAgain:
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			possible := []event{restartAsked}
			if current {
				possible = append(possible, currentDied)
			} else {
				possible = append(possible, currentRuns)
			}
			if follower {
				possible = append(possible, nextServes, nextFailed)
			}
			if leaving {
				possible = append(possible, formerGone)
			}
			e := rapid.SampledFrom(possible).Draw(t, "event")
			switch e {
			case restartAsked:
				wanted = true
			case currentRuns:
				current = true
			case currentDied:
				current = false
			case nextFailed:
				follower = false
			case formerGone:
				leaving = false
			case nextServes:
			}
			apply(e)
			if wanted && current && !follower && !leaving {
				t.Fatalf("after event %d nobody starts the successor that was asked for", e)
			}
		}
	})
}
