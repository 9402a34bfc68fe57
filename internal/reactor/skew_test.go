package reactor

import (
	"testing"

	"hanse/internal/hlc"
	"hanse/internal/shard"
)

// Found by the simulator (seeds 2001, 2050, 2088): a leader whose clock had jumped ahead by minutes left a message with a
// pause of a moment, and the next leader, whose clock was right, waited for minutes.
func TestPauseDoesNotGrowWithTheSkewOfClocks(t *testing.T) {
	r := newReactor()
	m := message(1, stock, "a")
	m.Created, m.NotBefore = hlc.FromMillis(600_000), hlc.FromMillis(600_250)
	r.Lead(source, 1, []*shard.Message{m}, 1000)
	r.Tick(1249)
	if a := r.Take(); len(a.Deliveries) != 0 {
		t.Fatalf("sent %v ms after it was found, want a pause of 250", 249)
	}
	r.Tick(1250)
	if a := r.Take(); len(a.Deliveries) != 1 {
		t.Fatal("not sent after the pause that was meant")
	}
}
