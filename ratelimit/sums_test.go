package ratelimit

import (
	"testing"
	"time"
)

func TestSumsStaySmall(t *testing.T) {
	var s sums
	for i := range int64(200_000) {
		s.add(i*int64(time.Millisecond), int64(time.Minute)/subWindows, int64(time.Minute), 5)
	}
	if len(s.pieces) > subWindows+2 {
		t.Fatalf("%d pieces", len(s.pieces))
	}
	now := 199_999 * int64(time.Millisecond)
	if got := s.used(now, int64(time.Minute)); got < 60_000*5 || got > 61_000*5 {
		t.Fatalf("%d used", got)
	}
}

func TestSumsCountWhatALongerWindowAsksFor(t *testing.T) {
	var s sums
	for i := range int64(100) {
		s.add(i*10, 1, 10, 1)
	}
	if got := s.used(1000, 2000); got != 100 {
		t.Fatalf("%d used, want 100", got)
	}
	if got := s.used(3000, 2000); got != 0 {
		t.Fatalf("%d used, want 0", got)
	}
}
