package hlc

import "testing"

func TestClockNeverGoesBack(t *testing.T) {
	var c Clock
	first := c.Next(1000)
	if first.Millis() != 1000 {
		t.Fatalf("Next(1000).Millis() = %d, want 1000", first.Millis())
	}
	if next := c.Next(900); next <= first || next.Millis() != 1000 {
		t.Errorf("after %d, a wall clock set back gave %d, want the next count of the same millisecond", first, next)
	}
	c.See(FromMillis(5000))
	if next := c.Next(1001); next <= FromMillis(5000) {
		t.Errorf("Next after See(5000 ms) = %d ms, want later than what was seen", next.Millis())
	}
}
