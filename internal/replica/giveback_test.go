package replica

import "testing"

// Found by the simulator (seed 21342): Raft forgets once in an election timeout who has been active, and a look in the same tick
// found nobody, each time again when the periods were multiples of each other.
func TestLeadership_returns_whenever_it_was_lost(t *testing.T) {
	for offset := range uint64(10) {
		c := newCluster(t, 3, 1, nil)
		c.must(reg, "=k a")
		c.nodes[0].crash()
		for _, n := range c.nodes[1:] {
			n.host.ticks = offset
		}
		c.must(reg, "=k b")
		c.nodes[0].start()
		before := c.now
		c.until("node 1 leads again", func() bool { n := c.leader(reg); return n != nil && n.id == 1 })
		if took := c.now - before; took > 10_000 {
			t.Errorf("offset %d: the preferred replica leads again after %d ms, want less than 10 s", offset, took)
		}
	}
}
