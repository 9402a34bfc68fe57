package replica

import "testing"

// Found by the simulator (seeds 119 and 121): a group of one answered at the commit index that a crash had set back.
func TestReads_after_a_restart_see_what_was_answered_before(t *testing.T) {
	c := newCluster(t, 1, 1, nil)
	c.must(reg, "=k a")
	c.must(reg, "=k b")
	n := c.nodes[0]
	n.crash()
	n.start()
	for range 100 {
		if n.host.Leads(reg) {
			break
		}
		c.now += 50
		n.host.Tick()
		n.turn()
		if !n.host.Leads(reg) {
			n.finishWrite()
		}
	}
	a := n.read(reg, Linearizable, 0, "k")
	c.until("an answer", func() bool { return a.n == 1 })
	if string(a.result.Payload) != "a;b;" {
		t.Errorf("the first read of a leader = %+v, want a;b;", a)
	}
}
