package replica

import (
	"fmt"
	"slices"
	"testing"

	"hanse/internal/transport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Found by the simulator (seed 11726): a follower whose disk was slow was sent a snapshot and then entries; both were in one
// Ready, and of the entries, which it acknowledged, none was written.
func TestEntries_that_come_with_a_snapshot_are_written(t *testing.T) {
	c := newCluster(t, 3, 1, func(cfg *Config) { cfg.RetainEntries, cfg.RetainBytes, cfg.TruncateEntries = 10, 1<<10, 10 })
	c.must(reg, "=k a")
	leader := c.leader(reg)
	slow := c.node(leader.id%3 + 1)
	slow.crash()
	for i := range 100 {
		c.must(reg, fmt.Sprintf("=k%d %0100d", i, i))
	}
	c.until("truncation", func() bool { return leader.host.groups[reg].log.trunc.index > 50 })
	slow.start()
	g := slow.host.groups[reg]
	together := false
	for i := 0; !together && i < 400; i++ {
		if i%8 == 0 {
			c.now += 50
			leader.host.Tick()
			leader.propose(reg, fmt.Sprintf("=late %d", i), false)
		}
		wire := c.wire
		c.wire = nil
		for _, p := range wire {
			c.deliver(p)
		}
		if offered := g.receiving != nil && !g.receiving.installing; offered && len(leader.sending) == 0 {
			// Raft has the snapshot and the host has not looked yet. An answer to a heartbeat that was on its way makes the
			// leader go on with entries.
			leader.host.Receive(slow.id, []transport.Message{{
				Kind: transport.KindRaft, Group: uint32(reg), FromReplica: g.replica, ToReplica: leader.host.groups[reg].replica,
				Raft: &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: new(g.replica), To: new(leader.host.groups[reg].replica), Term: new(g.hard.term)},
			}})
			leader.turn()
			for _, p := range c.wire {
				c.deliver(p)
			}
			c.wire = nil
			slow.turn()
			together = len(g.ready.Entries) > 0 && g.receiving != nil && g.receiving.installing
		} else if !offered {
			slow.turn()
			slow.finishWrite()
		}
		for _, n := range c.nodes {
			if n != slow {
				n.turn()
				n.finishWrite()
			}
		}
	}
	if !together {
		t.Fatal("snapshot and entries never came in one Ready: the test shows nothing")
	}
	last := g.ready.Entries[len(g.ready.Entries)-1].GetIndex()
	slow.turn()
	slow.finishWrite()
	slow.crash()
	slow.start()
	if got := slow.host.groups[reg].log.last(); got < last {
		t.Errorf("after a restart the log ends at %d, want the entries up to %d that came with the snapshot", got, last)
	}
	c.must(reg, "=k b")
	c.agree()
}

// Found by the simulator (seed 656909553366): a follower that had been away was writing an entry that changes the members, known to be committed, when
// a snapshot of a later state had arrived. Raft took over the snapshot's members, and then the older change on top of them.
func TestASnapshotWaitsForTheChangeOfMembersThatIsBeingWritten(t *testing.T) {
	c := newCluster(t, 4, 1, nil)
	c.must(reg, "=k a")
	leader := c.leader(reg)
	slow, other := c.node(leader.id%4+1), uint64((leader.id+1)%4+1)
	lg, sg := leader.host.groups[reg], slow.host.groups[reg]
	change := func(kind ChangeKind) {
		t.Helper()
		done := false
		leader.host.ChangeMembers(reg, []MemberChange{{Kind: kind, Replica: Replica{ID: other}}}, c.now+60_000, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			done = true
		})
		for range 40 {
			c.stepBut(slow)
		}
		if !done {
			t.Fatalf("change %d of the members was not made", kind)
		}
	}
	c.until("the slow node has everything", func() bool { return sg.handed == lg.handed && !sg.held })
	change(Demote)
	slow.turn()
	if !sg.held || len(sg.rest) == 0 || slow.write == nil {
		t.Fatal("the slow node is not writing a committed entry: the test shows nothing")
	}
	c.cut[[2]transport.NodeID{leader.id, slow.id}] = true
	change(Promote)

	lo, hi := groupSpan(reg)
	staged, err := slow.engine.Replace(lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	slow.host.Staged(&Received{
		group: reg, from: leader.id, replica: sg.replica, sender: lg.replica, id: 1, staged: staged, term: lg.hard.term, complete: true,
		state: appliedState{position: position{lg.applied, lg.log.term(lg.applied)}, membership: lg.membership},
	})
	for range 4 {
		slow.turn()
		slow.finishWrite()
	}
	if sg.handed != lg.applied {
		t.Fatalf("the slow node is at %d, want the snapshot's %d", sg.handed, lg.applied)
	}
	conf := sg.raft.Status().Config
	if voters := conf.Voters[0].Slice(); !slices.Equal(voters, lg.membership.conf.Voters) || len(conf.Learners) > 0 {
		t.Errorf("its Raft counts the votes of %v, and %v have none; want %v and nobody", voters, conf.Learners, lg.membership.conf.Voters)
	}
}
