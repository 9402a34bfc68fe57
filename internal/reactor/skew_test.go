package reactor

import (
	"errors"
	"testing"

	"hanse/internal/clock"
	"hanse/internal/hlc"
	"hanse/internal/shard"
)

// Found by the simulator (seeds 2001, 2050, 2088): a leader whose clock had jumped ahead by minutes left a message with a
// pause of a moment, and the next leader, whose clock was right, waited for minutes.
func TestPauseDoesNotGrowWithTheSkewOfClocks(t *testing.T) {
	r := newReactor()
	m := message(1, stock, "a")
	m.Created, m.NotBefore = hlc.FromMillis(600_000), hlc.FromMillis(600_250)
	r.Lead(source, 1, []*shard.Message{m}, at(1000))
	r.Tick(at(1249))
	if a := r.Take(); len(a.Deliveries) != 0 {
		t.Fatalf("sent %v ms after it was found, want a pause of 250", 249)
	}
	r.Tick(at(1250))
	if a := r.Take(); len(a.Deliveries) != 1 {
		t.Fatal("not sent after the pause that was meant")
	}
}

// A clock that was ahead when a delivery failed and is right again does not stretch the pause.
func TestRetryDoesNotFollowAClockThatJumps(t *testing.T) {
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a")}, at(0))
	r.Take()
	r.Answered(source, 1, 1, shard.Result{}, errors.New("no leader"), clock.Reading{Mono: 1000, Wall: 301_000})
	r.Tick(clock.Reading{Mono: 1100, Wall: 1100})
	if got := sentSeqs(r.Take()); len(got) != 1 {
		t.Fatalf("sent %v 100 ms after the failure, want the retry", got)
	}
}
