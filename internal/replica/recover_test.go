package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"hanse/internal/transport"
)

// recoverOn recovers reg on a node under a number, and returns what that came to.
func (c *fleet) recoverOn(n *testNode, number uint64) error {
	c.t.Helper()
	answered, result := false, error(nil)
	n.host.Recover(reg, number, func(err error) { answered, result = true, err })
	c.until("recovered", func() bool { return answered })
	return result
}

// lose makes a cluster of three that has values, of which two are lost for good, and returns the survivor once it knows. It is the
// leader when there is a tail to be written, else a follower.
func lose(t *testing.T, tail func(c *fleet, survivor *testNode)) (*fleet, *testNode) {
	c := newCluster(t, 3, 1, func(cfg *Config) { cfg.RetainEntries, cfg.RetainBytes, cfg.TruncateEntries = 20, 2<<10, 5 })
	for i := range 60 {
		c.must(reg, fmt.Sprintf("=k v%d", i))
	}
	survivor := c.leader(reg)
	if tail == nil {
		c.agree()
		survivor = c.node(survivor.id%3 + 1)
	}
	for _, n := range c.nodes {
		if n != survivor {
			n.crash()
		}
	}
	if tail != nil {
		tail(c, survivor)
	}
	c.until("nobody leads", func() bool { return !survivor.host.Leads(reg) && survivor.host.groups[reg].leader == 0 })
	return c, survivor
}

func TestRecovered_replica_goes_on_alone_and_grows_again(t *testing.T) {
	var unknown *answer
	c, survivor := lose(t, func(c *fleet, n *testNode) { unknown = n.propose(reg, "=k tail", false); c.tick() })
	old := survivor.host.groups[reg]
	if a := survivor.propose(reg, "=k no", false); a.err == nil {
		t.Fatal("a write went on without a majority")
	}
	c.until("an answer", func() bool { return unknown.n == 1 })
	if !errors.Is(unknown.err, ErrOutcomeUnknown) {
		t.Errorf("what was under way: %v, want ErrOutcomeUnknown", unknown.err)
	}
	read := survivor.read(reg, AtLeast, old.log.last(), "k")
	if err := c.recoverOn(survivor, 17); err != nil {
		t.Fatal(err)
	}
	var notLeader *NotLeaderError
	if read.n != 1 || !errors.As(read.err, &notLeader) {
		t.Errorf("a read that waited: %d answers, %v, want NotLeaderError", read.n, read.err)
	}
	c.must(reg, "=k after")
	want := ""
	for i := range 60 {
		want += fmt.Sprintf("v%d;", i)
	}
	want += "tail;after;" // what was in the log counts
	if v := survivor.replica(reg).machine.Query([]byte("k")); string(v.Payload) != want {
		t.Errorf("k = %s, want %s", v.Payload, want)
	}
	s := survivor.host.Status()[0]
	if s.Replica != 17 || len(s.Replicas) != 1 || !s.Member || s.Term <= recoveryTerms {
		t.Errorf("status after the recovery: %+v", s)
	}
	survivor.crash()
	survivor.start()
	c.must(reg, "=k restarted")
	if err := c.recoverOn(survivor, 17); err != nil {
		t.Errorf("recovering again under the same number: %v, want nothing to happen", err)
	}

	// A lost one comes back: it can neither win nor be heard.
	back := c.node(survivor.id%3 + 1)
	back.start()
	for range 100 {
		c.tick()
	}
	if back.host.Leads(reg) {
		t.Error("one of the lost replicas leads alone")
	}
	c.must(reg, "=k undisturbed")
	if got := survivor.host.Members(reg); len(got) != 1 {
		t.Errorf("members are %v, want the recovered one", got)
	}
	if now := survivor.host.Status()[0].Term; now > s.Term+5 {
		t.Errorf("terms went from %d to %d: the old replica disturbs", s.Term, now)
	}

	// Its successor joins.
	destroyed, created := errors.New("unanswered"), errors.New("unanswered")
	back.host.Destroy(reg, uint64(back.id), 18, func(err error) { destroyed = err })
	c.until("destroyed", func() bool { return destroyed == nil })
	back.host.Create(reg, 18, func(err error) { created = err })
	c.until("created", func() bool { return created == nil })
	c.change(reg, MemberChange{AddLearner, Replica{ID: 18, Node: back.id}})
	c.until("caught up", func() bool { return survivor.host.CaughtUp(reg, 18) })
	c.change(reg, MemberChange{Promote, Replica{ID: 18}})
	c.must(reg, "=k grown")
	hash := survivor.replica(reg).machine.Hash()
	c.until("equal", func() bool { return back.replica(reg).machine.Hash() == hash })
	survivor.crash()
	survivor.start()
	c.must(reg, "=k end")
}

// A change of members that is in the log, committed or not, does not come into force after a recovery.
func TestRecovery_forgets_changes_of_members(t *testing.T) {
	c, survivor := lose(t, func(c *fleet, n *testNode) {
		changed := errors.New("unanswered")
		n.host.ChangeMembers(reg, []MemberChange{{AddLearner, Replica{ID: 9, Node: 9}}}, c.now+1000, func(err error) { changed = err })
		c.tick()
		if changed == nil {
			t.Fatal("a change came into force without a majority")
		}
	})
	if err := c.recoverOn(survivor, 10); err != nil {
		t.Fatal(err)
	}
	c.must(reg, "=k after")
	for range 2 {
		if got := survivor.host.Members(reg); !slices.Equal(got, []Replica{{10, survivor.id}}) {
			t.Errorf("members are %v, want the recovered one", got)
		}
		survivor.crash()
		survivor.start()
		c.must(reg, "=k again")
	}
}

func TestRecovery_is_all_or_nothing_over_a_crash(t *testing.T) {
	for _, done := range []bool{false, true} {
		c, survivor := lose(t, nil)
		survivor.host.Recover(reg, 17, func(error) {})
		for survivor.write == nil || !slices.ContainsFunc(survivor.write.ops, func(op writeOp) bool { return op.recover != nil }) {
			survivor.finishWrite()
			survivor.turn()
		}
		if done {
			if err := survivor.write.Execute(survivor.engine); err != nil {
				t.Fatal(err)
			}
		}
		survivor.crash()
		survivor.start()
		want := uint64(survivor.id)
		if done {
			want = 17
			c.must(reg, "=k after")
		}
		if got := survivor.host.Replica(reg); got != want {
			t.Errorf("written %v: after a crash the replica has number %d, want %d", done, got, want)
		}
	}
}

func TestRecovery_is_refused(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	var refused *RefusedError
	for _, n := range c.nodes {
		if err := c.recoverOn(n, 17); !errors.As(err, &refused) {
			t.Errorf("with a leader: %v, want RefusedError", err)
		}
	}
	c, survivor := lose(t, nil)
	for number := uint64(1); number <= 3; number++ {
		if err := c.recoverOn(survivor, number); number != uint64(survivor.id) && !errors.As(err, &refused) {
			t.Errorf("under number %d, which was used: %v, want RefusedError", number, err)
		}
	}
	if survivor.host.Replica(reg) != uint64(survivor.id) {
		t.Error("a refused recovery changed something")
	}
}

func TestDestroy_takes_only_the_replica_that_is_meant(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	c.change(reg, MemberChange{Remove, Replica{ID: 3}})
	n := c.nodes[2]
	var refused *RefusedError
	n.host.Destroy(reg, 2, 9, func(err error) {
		if !errors.As(err, &refused) {
			t.Errorf("Destroy of another number: %v, want RefusedError", err)
		}
	})
	destroyed := errors.New("unanswered")
	n.host.Destroy(reg, 3, 9, func(err error) { destroyed = err })
	n.host.Create(reg, 9, func(err error) {
		if !errors.As(err, &refused) {
			t.Errorf("Create while the former replica goes: %v, want RefusedError", err)
		}
	})
	c.until("destroyed", func() bool { return destroyed == nil })
	created, again := errors.New("unanswered"), errors.New("unanswered")
	n.host.Create(reg, 9, func(err error) { created = err })
	n.host.Create(reg, 10, func(err error) { again = err })
	c.until("created", func() bool { return created == nil })
	if !errors.As(again, &refused) || n.host.Replica(reg) != 9 {
		t.Errorf("two were made at once: %v, replica %d, want RefusedError and 9", again, n.host.Replica(reg))
	}
}

func TestLeadership_goes_where_it_is_preferred(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	prefer := func(node transport.NodeID) {
		for _, n := range c.nodes {
			if n.host != nil {
				n.host.Prefer(reg, node)
			}
		}
	}
	leads := func(id transport.NodeID) func() bool {
		return func() bool { n := c.leader(reg); return n != nil && n.id == id }
	}
	c.must(reg, "=k a")
	prefer(3)
	c.until("node 3 leads", leads(3))
	c.nodes[2].crash()
	c.must(reg, "=k b")
	c.nodes[2].start()
	c.nodes[2].host.Prefer(reg, 3)
	c.until("node 3 leads again", leads(3))
	prefer(7) // it has no replica: nothing changes
	for range 100 {
		c.tick()
	}
	if !leads(3)() {
		t.Error("the leadership moved although the preferred node has no replica")
	}
	prefer(0)
	c.until("node 1 leads, whose turn it is", leads(1))
	for _, n := range c.nodes {
		n.crash()
	}
	began := c.now
	for _, n := range c.nodes {
		n.start()
	}
	prefer(2)
	c.until("node 2 leads", leads(2))
	if took := c.now - began; took > 500 {
		t.Errorf("after a start the preferred replica leads after %d ms, want less than an election timeout", took)
	}
}

func TestStatus_says_what_a_driver_needs(t *testing.T) {
	c := newCluster(t, 4, 1, nil)
	c.must(reg, "=k a")
	c.change(reg, MemberChange{Demote, Replica{ID: 4}})
	c.until("caught up", func() bool { return c.leader(reg).host.CaughtUp(reg, 4) })
	leader := c.leader(reg)
	s := leader.host.Status()[0]
	if !s.Member || !s.Leads || s.Joint || s.LastTerm != s.Term || len(s.Replicas) != 4 {
		t.Errorf("status of the leader: %+v", s)
	}
	for _, r := range s.Replicas {
		if r.Voter != (r.ID != 4) || r.Learner != (r.ID == 4) || r.Outgoing || !r.Active || !r.CaughtUp {
			t.Errorf("replica %+v", r)
		}
	}
	s = c.node(leader.id%3 + 1).host.Status()[0]
	if s.Leads || !s.Member || s.Leader != leader.id {
		t.Errorf("status of a follower: %+v", s)
	}
	for _, r := range s.Replicas {
		if r.Voter != (r.ID != 4) || r.Active || r.CaughtUp {
			t.Errorf("replica as a follower knows it: %+v", r)
		}
	}
	out := uint64(leader.id%3 + 1)
	leader.host.ChangeMembers(reg, []MemberChange{{Promote, Replica{ID: 4}}, {Demote, Replica{ID: out}}}, c.now+60_000, func(error) {})
	joint := false
	for range 40 {
		c.step()
		if s = leader.host.Status()[0]; s.Joint {
			joint = true
			for _, r := range s.Replicas {
				if r.Outgoing != (r.ID == out) || r.Voter != (r.ID != out) || r.Learner {
					t.Errorf("replica in a joint configuration: %+v", r)
				}
			}
		}
	}
	if !joint {
		t.Error("no joint configuration was seen")
	}
}

// Raft sets Progress.RecentActive back at each check of the quorum, so a look right after it found nobody.
func TestCaughtUp_is_steady(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	leader := c.leader(reg)
	for range 5 {
		c.tick()
	}
	for i := range 60 {
		c.now += 50
		leader.host.Tick()
		for _, n := range c.nodes {
			if n != leader {
				n.host.Tick()
			}
			if !leader.host.CaughtUp(reg, uint64(n.id)) {
				t.Errorf("tick %d: replica %d is not caught up", i, n.id)
			}
		}
		for range 6 {
			c.step()
		}
	}
	gone := c.node(leader.id%3 + 1)
	gone.crash()
	c.until("it counts as gone", func() bool { return !leader.host.CaughtUp(reg, uint64(gone.id)) })
}

func TestOld_copy_of_a_directory_stops_the_node(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	follower := c.node(c.leader(reg).id%3 + 1)
	for range 5 {
		c.tick()
	}
	old := follower.disk.Copy()
	for i := range 20 {
		c.must(reg, fmt.Sprintf("=k v%d", i))
	}
	c.agree()
	follower.crash()
	follower.disk = old
	follower.engine = old.Open()
	follower.start()
	c.until("the node notices", func() bool { return follower.host.Broken() != nil })
	var e *OldCopyError
	if err := follower.host.Broken(); !errors.As(err, &e) || e.Shard != reg || e.Acknowledged <= e.Last {
		t.Errorf("Broken = %v, want an OldCopyError", err)
	}
	follower.crash()
	c.must(reg, "=k end")
}

// A write that was in flight when a replica was retired must not bring it back to work: it would write over its successor's records.
func TestRetired_replica_writes_nothing_more(t *testing.T) {
	c, survivor := lose(t, nil)
	g := survivor.host.groups[reg]
	for survivor.write == nil { // a write that holds nothing of the replica but its hard state
		g.hardDirty = true
		survivor.host.syncIdle()
		survivor.turn()
	}
	survivor.host.Recover(reg, 17, func(error) {})
	survivor.finishWrite()
	if g.active {
		t.Error("the retired replica is looked at again")
	}
	c.must(reg, "=k after")
	survivor.crash()
	survivor.start()
	c.must(reg, "=k restarted")
}
