package replica

import "testing"

// Found by the simulator (seed 8000085): a replica was removed for good after the leader had applied that, while the others knew it only
// as an entry that might not be committed. They crashed, one for ever, and asked for the votes of the replica that was gone.
func TestAChangeOfMembersIsOverWhenAMajorityKnows(t *testing.T) {
	c := newCluster(t, 5, 1, nil)
	c.must(reg, "=k a")
	leader := c.leader(reg)
	out := uint64(leader.id%5 + 1)
	leader.host.ChangeMembers(reg, []MemberChange{{Kind: Remove, Replica: Replica{ID: out}}}, c.now+60_000, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	status := func() Status { return leader.host.Status()[0] }
	changed := uint64(0)
	for range 40 {
		c.step()
		if changed == 0 && len(status().Replicas) == 4 {
			changed = leader.host.groups[reg].handed
			if s := status(); !s.Settling || !s.Group().Joint {
				t.Error("the change is over as soon as the leader has applied it")
			}
		}
	}
	if changed == 0 {
		t.Fatal("the change was not applied")
	}
	c.until("it is over, although nobody asks for anything", func() bool { return !status().Settling && !status().Joint })
	know := 0
	for _, n := range c.nodes {
		n.crash()
	}
	for _, n := range c.nodes {
		n.start()
		if g := n.host.groups[reg]; uint64(n.id) != out && g.hard.commit >= changed {
			know++
		}
	}
	if know < 3 {
		t.Errorf("%d of four know after a crash that the change is committed, want a majority", know)
	}
}
