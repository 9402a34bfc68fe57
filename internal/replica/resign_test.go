package replica

import (
	"testing"

	"hanse/internal/transport"
)

// deafen has a node hear nobody, while all hear it.
func (c *fleet) deafen(id transport.NodeID, deaf bool) {
	for _, n := range c.nodes {
		c.cut[[2]transport.NodeID{n.id, id}] = deaf
	}
}

// A leader that hears nobody goes on being heard, so nobody else would campaign until its quorum check and their timeouts have passed:
// up to two seconds.
func TestADeafLeaderResigns(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		for offset := range uint64(10) { // of the quorum check
			c := newCluster(t, nodes, 1, nil)
			c.must(reg, "=k a")
			for range offset {
				c.tick()
			}
			was := c.leader(reg)
			c.deafen(was.id, true)
			lost := was.propose(reg, "=k b", false) // the others have it, and their leader will commit it
			began := c.now
			c.until("another leads", func() bool { n := c.leader(reg); return n != was })
			if took := c.now - began; took > 550 {
				t.Errorf("%d nodes, offset %d: another leads after %d ms, want 550 at most", nodes, offset, took)
			}
			c.must(reg, "=k c")
			if lost.n > 0 && lost.err == nil {
				t.Errorf("%d nodes, offset %d: a leader that hears nobody says that it has committed", nodes, offset)
			}
			c.deafen(was.id, false)
			c.until("the deaf one follows", func() bool { return !was.host.groups[reg].leads() })
			c.must(reg, "=k d")
		}
	}
}

func TestALeaderThatIsDeafForAMomentStays(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	was := c.leader(reg)
	term := was.host.groups[reg].leadTerm
	for range 20 {
		c.deafen(was.id, true)
		for range resignTicks(DefaultConfig().ElectionTicks) - 2 { // one more passes before an answer is back
			c.tick()
		}
		c.deafen(was.id, false)
		c.must(reg, "=k b")
	}
	if n := c.leader(reg); n != was || n.host.groups[reg].leadTerm != term {
		t.Errorf("node %d leads in term %d, want %d in %d still", n.id, n.host.groups[reg].leadTerm, was.id, term)
	}
}

// One of two followers is enough to stay, and a leader without others hears itself.
func TestALeaderWithAMajorityStays(t *testing.T) {
	for nodes, gone := range map[int][]transport.NodeID{1: nil, 3: {3}, 5: {4, 5}} {
		c := newCluster(t, nodes, 1, nil)
		c.must(reg, "=k a")
		was := c.leader(reg)
		if was.id != 1 {
			t.Fatalf("node %d leads, want the preferred one", was.id)
		}
		for _, id := range gone {
			c.node(id).crash()
		}
		term := was.host.groups[reg].leadTerm
		for range 100 {
			c.tick()
		}
		if g := was.host.groups[reg]; !g.leads() || g.leadTerm != term {
			t.Errorf("%d nodes without %v: the leader of term %d leads no longer", nodes, gone, term)
		}
	}
}
