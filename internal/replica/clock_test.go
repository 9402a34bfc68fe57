package replica

import (
	"testing"

	"hanse/internal/hlc"
	"hanse/internal/transport"
)

// tenMinutes is how far the clocks of these tests jump, in ms.
const tenMinutes = 600_000

// The clock of a leader was ahead for a moment and is right again. What waits has its own time, whatever the clock shows.
func TestDeadlines_do_not_follow_a_clock_that_jumps(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	leader := c.leader(reg)

	settling := leader.propose(reg, ">key", true)
	c.tick()
	leader.skew = tenMinutes
	c.tick()
	c.tick()
	if settling.n != 0 {
		t.Fatalf("an answer that waits for its key was given up when the clock jumped: %+v", settling)
	}
	leader.skew = 0
	c.tick()

	for _, n := range c.nodes { // too short for an election, long enough for a few looks at deadlines
		c.cut[[2]transport.NodeID{n.id, leader.id}] = true
	}
	written, read := leader.propose(reg, "=k b", false), leader.read(reg, Linearizable, 0, "k")
	for range 6 {
		c.tick()
	}
	if written.n+read.n != 0 {
		t.Fatalf("given up 300 ms after they came: command %+v, read %+v", written, read)
	}
	clear(c.cut)
	c.until("answered", func() bool { return written.n+read.n == 2 })
	if written.err != nil || read.err != nil {
		t.Errorf("command %v, read %v, want both answered", written.err, read.err)
	}
	c.must(reg, "!key")
	c.until("settled", func() bool { return settling.n == 1 })
	if string(settling.result.Payload) != "settled" {
		t.Errorf("result %+v, want the view", settling.result)
	}
}

// The log's time follows a clock ahead and never back, on every node that has seen it.
func TestLogTime_never_goes_back(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	leader := c.leader(reg)
	leader.skew = tenMinutes
	c.must(reg, "=k b")
	c.agree()
	ahead := leader.replica(reg).state.time
	if ahead < hlc.FromMillis(c.now+tenMinutes-1000) {
		t.Fatalf("time of the log is %v with a clock ten minutes ahead of %d", ahead.Time(), c.now)
	}
	leader.skew = 0
	c.must(reg, "=k c")
	if after := leader.replica(reg).state.time; after <= ahead || after > ahead+hlc.FromMillis(1) {
		t.Errorf("time %v after %v: want it to count on", after, ahead)
	}
	leader.crash()
	c.until("another leader", func() bool { next := c.leader(reg); return next != nil && next != leader })
	c.must(reg, "=k d")
	if after := c.leader(reg).replica(reg).state.time; after <= ahead {
		t.Errorf("time %v of the next leader after %v: want it to count on", after, ahead)
	}
}
