package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"
)

func TestReplicas_elect_their_preferred_leaders(t *testing.T) {
	c := newCluster(t, 3, 3, nil)
	c.until("three leaders", func() bool {
		for i := range 3 {
			n := c.leader(shard.NewID(shard.Keyspace, i))
			if n == nil || n.id != transport.NodeID(i+1) {
				return false
			}
		}
		return true
	})
	if c.now > 1_000_000+1000 {
		t.Errorf("took %d ms, want less than an election timeout", c.now-1_000_000)
	}
}

func TestCommands_are_applied_once_on_every_replica(t *testing.T) {
	c := newCluster(t, 3, 2, nil)
	for i := range 20 {
		if r := c.must(reg, fmt.Sprintf("=k v%d", i)); string(r.Payload) != fmt.Sprintf("v%d", i) || r.Position == 0 {
			t.Fatalf("command %d: result %+v", i, r)
		}
	}
	c.agree()
	for _, n := range c.nodes {
		v := n.replica(reg).machine.Query([]byte("k"))
		if got := bytes.Count(v.Payload, []byte(";")); got != 20 {
			t.Errorf("node %d has %d values, want 20: %s", n.id, got, v.Payload)
		}
	}
}

func TestQueued_commands_share_an_entry(t *testing.T) {
	c := newCluster(t, 1, 1, nil)
	c.until("a leader", func() bool { return c.leader(reg) != nil })
	before := c.nodes[0].host.groups[reg].log.last()
	var all []*answer
	for range 500 {
		all = append(all, c.nodes[0].propose(reg, "=k v", false))
	}
	c.until("answers", func() bool { return all[499].n == 1 })
	if got := c.nodes[0].host.groups[reg].log.last() - before; got != 1 {
		t.Errorf("500 commands made %d entries, want 1", got)
	}
}

func TestLazy_commands_share_the_entry_of_another(t *testing.T) {
	c := newCluster(t, 1, 1, func(cfg *Config) { cfg.MaxEntryCommands = 10 })
	c.must(reg, "=k v")
	n := c.nodes[0]
	lazy := func() *answer {
		a := new(answer)
		n.host.Propose(reg, shard.Command{Kind: shard.KindLogic, Payload: []byte("=k v")}, Manner{Lazy: true}, c.now+5000, a.done)
		return a
	}
	ticks := func(n int) {
		for range n {
			c.tick()
		}
	}
	last := func() uint64 { return n.host.groups[reg].log.last() }

	before, first, second := last(), lazy(), lazy()
	ticks(3)
	if first.n > 0 || last() != before {
		t.Errorf("150 ms after the first lazy command: %d answers and %d new entries, want none", first.n, last()-before)
	}
	other := n.propose(reg, "=k v", false)
	ticks(1)
	if first.n != 1 || second.n != 1 || other.n != 1 || last() != before+1 {
		t.Errorf("with another command: %d, %d and %d answers, %d entries, want one of each", first.n, second.n, other.n, last()-before)
	}

	before, first = last(), lazy()
	ticks(3)
	second = lazy()
	ticks(2)
	if first.n != 1 || second.n != 1 || last() != before+1 {
		t.Errorf("200 ms after the first of two: %d and %d answers, %d entries, want one of each", first.n, second.n, last()-before)
	}

	var all []*answer
	for range 11 {
		all = append(all, lazy())
	}
	ticks(1)
	if all[10].n != 1 {
		t.Error("the lazy commands that fill an entry, and the one after them, have no answer, want them not to wait")
	}
}

func TestFollowers_refuse_and_name_the_leader(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k v")
	c.tick()
	a := c.nodes[1].propose(reg, "=k w", false)
	var e *NotLeaderError
	if !errors.As(a.err, &e) || e.Leader != 1 {
		t.Errorf("follower answered %v, want NotLeaderError with leader 1", a.err)
	}
	if a = c.nodes[1].propose(shard.NewID(shard.Order, 7), "=k w", false); !errors.Is(a.err, ErrNoReplica) {
		t.Errorf("unknown shard: %v, want ErrNoReplica", a.err)
	}
}

func TestFull_queue_refuses_at_once(t *testing.T) {
	c := newCluster(t, 1, 1, func(cfg *Config) { cfg.MaxQueuedCommands = 3 })
	c.until("a leader", func() bool { return c.leader(reg) != nil })
	var all []*answer
	for n := range 5 {
		if host := c.nodes[0].host; host.Busy() != (n > 3) {
			t.Errorf("before command %d the host is busy: %v", n+1, host.Busy())
		}
		all = append(all, c.nodes[0].propose(reg, "=k v", false))
	}
	if !errors.Is(all[3].err, ErrBusy) || !errors.Is(all[4].err, ErrBusy) {
		t.Errorf("answers 4 and 5: %v, %v, want ErrBusy", all[3].err, all[4].err)
	}
	c.until("the others", func() bool { return all[0].n+all[1].n+all[2].n == 3 && all[0].err == nil })
	c.until("it is not busy any more", func() bool { return !c.nodes[0].host.Busy() })
}

func TestLeader_without_quorum_does_not_know_and_steps_down(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	old := c.leader(reg)
	for _, n := range c.nodes {
		c.cut[[2]transport.NodeID{old.id, n.id}], c.cut[[2]transport.NodeID{n.id, old.id}] = true, true
	}
	lost := old.propose(reg, "=k lost", false)
	c.until("step down", func() bool { return !old.host.groups[reg].leads() })
	refused := old.propose(reg, "=k refused", false)
	var notLeader *NotLeaderError
	if !errors.As(refused.err, &notLeader) {
		t.Errorf("after stepping down: %v, want NotLeaderError", refused.err)
	}
	c.must(reg, "=k b")
	c.until("an answer", func() bool { return lost.n == 1 })
	if !errors.Is(lost.err, ErrOutcomeUnknown) {
		t.Errorf("lost proposal: %v, want ErrOutcomeUnknown", lost.err)
	}
	clear(c.cut)
	c.agree()
	if v := old.replica(reg).machine.Query([]byte("k")); string(v.Payload) != "a;b;" {
		t.Errorf("k = %s, want a;b;", v.Payload)
	}
}

func TestOverwritten_proposal_is_known_to_have_failed(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	old := c.leader(reg)
	for _, n := range c.nodes {
		c.cut[[2]transport.NodeID{old.id, n.id}], c.cut[[2]transport.NodeID{n.id, old.id}] = true, true
	}
	lost := new(answer)
	old.host.Propose(reg, shard.Command{Kind: shard.KindLogic, Payload: []byte("=k lost")}, Manner{}, c.now+1_000_000, lost.done)
	c.until("another leader", func() bool { return c.leader(reg) != nil && c.leader(reg) != old })
	c.must(reg, "=k b")
	clear(c.cut)
	c.until("an answer", func() bool { return lost.n == 1 })
	var notLeader *NotLeaderError
	if !errors.As(lost.err, &notLeader) {
		t.Errorf("overwritten proposal: %v, want NotLeaderError", lost.err)
	}
}

func TestAnswer_waits_until_its_key_settles(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	leader := c.leader(reg)
	waiting, late := leader.propose(reg, ">key", true), leader.propose(reg, ">other", true)
	c.tick()
	if waiting.n != 0 {
		t.Fatalf("answered before it settled: %+v", waiting)
	}
	c.must(reg, "!key")
	c.until("settled", func() bool { return waiting.n == 1 })
	if string(waiting.result.Payload) != "settled" {
		t.Errorf("result %+v, want the view", waiting.result)
	}
	c.until("deadline", func() bool { return late.n == 1 })
	if late.err != nil || late.result.Pending != "other" {
		t.Errorf("after the deadline: %+v, want the pending result", late)
	}
}

func TestTimers_are_due_by_logged_ticks(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "@timer")
	c.until("due", func() bool { return c.nodes[2].replica(reg).machine.Query([]byte("timer")).OK() })
	c.agree()
}

func TestReads_see_what_was_answered_before(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	r := c.must(reg, "=k a")
	leader := c.leader(reg)
	a := leader.read(reg, Linearizable, 0, "k")
	c.until("read", func() bool { return a.n == 1 })
	if string(a.result.Payload) != "a;" {
		t.Errorf("linearizable read: %+v", a)
	}
	follower := c.node(leader.id%3 + 1)
	a = follower.read(reg, Linearizable, 0, "k")
	var notLeader *NotLeaderError
	if !errors.As(a.err, &notLeader) {
		t.Errorf("linearizable read at a follower: %v, want NotLeaderError", a.err)
	}
	a = follower.read(reg, AtLeast, r.Position, "k")
	c.until("follower read", func() bool { return a.n == 1 })
	if string(a.result.Payload) != "a;" || a.result.Position < r.Position {
		t.Errorf("read at least %d: %+v", r.Position, a)
	}
	// A leader that is cut off does not answer linearizable reads.
	for _, n := range c.nodes {
		c.cut[[2]transport.NodeID{leader.id, n.id}] = true
	}
	a = leader.read(reg, Linearizable, 0, "k")
	c.until("an answer", func() bool { return a.n == 1 })
	if a.err == nil {
		t.Errorf("a leader without quorum answered a linearizable read: %+v", a)
	}
}

func TestLeadership_is_handed_over(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	if err := c.nodes[0].host.TransferLeader(reg, 3); err != nil {
		t.Fatal(err)
	}
	c.until("node 3 leads", func() bool { n := c.leader(reg); return n != nil && n.id == 3 })
	var refused *RefusedError
	if err := c.nodes[2].host.TransferLeader(reg, 9); !errors.As(err, &refused) {
		t.Errorf("transfer to a stranger: %v, want RefusedError", err)
	}
}

func TestLeadership_returns_to_the_preferred_replica(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.must(reg, "=k a")
	c.nodes[0].crash()
	c.must(reg, "=k b")
	if n := c.leader(reg); n.id == 1 {
		t.Fatal("a crashed node leads")
	}
	c.nodes[0].start()
	c.until("node 1 leads again", func() bool { n := c.leader(reg); return n != nil && n.id == 1 })
	c.must(reg, "=k c")
}

func TestReplica_that_lags_far_gets_a_snapshot(t *testing.T) {
	c := newCluster(t, 3, 1, func(cfg *Config) { cfg.RetainEntries, cfg.RetainBytes = 10, 1<<10 })
	c.must(reg, "=k a")
	lagging := c.node(c.leader(reg).id%3 + 1)
	lagging.crash()
	for i := range 300 {
		c.must(reg, fmt.Sprintf("=k%d %0100d", i, i))
	}
	c.until("truncation", func() bool { return c.leader(reg).host.groups[reg].log.trunc.index > 100 })
	lagging.start()
	c.agree()
	if got := lagging.host.groups[reg].log.trunc.index; got < 100 {
		t.Errorf("the log of the replica begins after %d: no snapshot was installed", got)
	}
	c.must(reg, "=k b")
	c.agree()
	lagging.crash()
	lagging.start()
	c.must(reg, "=k c")
	c.agree()
}

// change changes members at the leader until that succeeds.
func (c *fleet) change(id shard.ID, changes ...MemberChange) {
	c.t.Helper()
	result, asked := errors.New("not asked"), false
	c.until(fmt.Sprint("members ", changes), func() bool {
		if n := c.leader(id); n != nil && !asked && result != nil {
			asked = true
			n.host.ChangeMembers(id, changes, c.now+3000, func(err error) { result, asked = err, false })
		}
		return result == nil
	})
}

func TestMembers_join_as_learners_and_leave_for_good(t *testing.T) {
	c := newCluster(t, 4, 1, func(cfg *Config) { cfg.RetainEntries, cfg.RetainBytes, cfg.TruncateEntries = 10, 1<<10, 5 })
	// The group begins on nodes 1 to 3: node 4's replica is taken away first.
	c.must(reg, "=k a")
	c.change(reg, MemberChange{Remove, Replica{ID: 4}})
	destroyed := errors.New("unanswered")
	c.nodes[3].host.Destroy(reg, 4, 5, func(err error) { destroyed = err })
	c.until("destroyed", func() bool { return destroyed == nil })
	for i := range 60 {
		c.must(reg, fmt.Sprintf("=k v%d", i))
	}
	var refused *RefusedError
	c.nodes[3].host.Create(reg, 4, func(err error) {
		if !errors.As(err, &refused) {
			t.Errorf("a number that was used is created again: %v", err)
		}
	})
	created := errors.New("unanswered")
	c.nodes[3].host.Create(reg, 5, func(err error) { created = err })
	c.until("created", func() bool { return created == nil })
	c.change(reg, MemberChange{AddLearner, Replica{ID: 5, Node: 4}})
	c.until("caught up", func() bool { return c.leader(reg).host.CaughtUp(reg, 5) })
	// One goes, one comes, in a joint change.
	c.change(reg, MemberChange{Promote, Replica{ID: 5}}, MemberChange{Remove, Replica{ID: 1}})
	c.nodes[0].crash()
	c.nodes[0].start() // a removed replica that wakes up disturbs nobody
	c.must(reg, "=k b")
	c.until("the old one is out", func() bool {
		n := c.leader(reg)
		return n != nil && n.id != 1 && !slices.Contains(n.host.groups[reg].membership.members(), 1)
	})
	c.nodes[0].crash()
	c.nodes[3].crash()
	c.nodes[3].start()
	c.must(reg, "=k c")
	c.nodes[1].crash() // two of three: 3 and the new 5 have to carry on
	c.must(reg, "=k d")
	want := c.leader(reg).replica(reg).machine.Hash()
	c.until("equal", func() bool { return c.nodes[3].replica(reg).machine.Hash() == want })
	leader := c.leader(reg)
	for _, bad := range [][]MemberChange{
		nil, {{Promote, Replica{ID: 9}}}, {{Remove, Replica{ID: 1}}}, {{AddLearner, Replica{ID: 6, Node: 4}}},
		{{Remove, Replica{ID: 2}}, {Remove, Replica{ID: 3}}, {Remove, Replica{ID: 5}}},
	} {
		leader.host.ChangeMembers(reg, bad, c.now+1000, func(err error) {
			if !errors.As(err, &refused) {
				t.Errorf("ChangeMembers(%v) = %v, want RefusedError", bad, err)
			}
		})
	}
}

func TestNothing_that_was_answered_is_lost(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { torture(t, seed) })
	}
}

// torture crashes, cuts and pauses at random while commands are proposed, then heals and compares.
func torture(t *testing.T, seed uint64) {
	c := newCluster(t, 3, 2, func(cfg *Config) {
		cfg.RetainEntries, cfg.RetainBytes, cfg.HoldBytes = 20, 2<<10, 8<<10
		cfg.MaxEntryCommands, cfg.TruncateEntries = 3, 10
		cfg.FlushInterval = time.Duration(seed+1) * 200 * time.Millisecond
	})
	c.rng = rand.New(rand.NewPCG(seed, 7))
	c.loss = c.rng.Float64() * 0.2
	type request struct {
		id     shard.ID
		answer *answer
		value  string
	}
	var requests []request
	for i := range 600 {
		for range c.rng.IntN(4) {
			n := c.nodes[c.rng.IntN(3)]
			if n.host == nil {
				continue
			}
			id := shard.NewID(shard.Keyspace, c.rng.IntN(2))
			value := fmt.Sprintf("%d.%d", i, len(requests))
			requests = append(requests, request{id, n.propose(id, "=k "+value, false), value})
		}
		switch c.rng.IntN(40) {
		case 0:
			if n := c.nodes[c.rng.IntN(3)]; n.host != nil {
				n.crash()
			}
		case 1, 2, 3:
			for _, n := range c.nodes {
				if n.host == nil {
					n.start()
				}
			}
		case 4:
			c.cut[[2]transport.NodeID{transport.NodeID(1 + c.rng.IntN(3)), transport.NodeID(1 + c.rng.IntN(3))}] = true
		case 5:
			clear(c.cut)
		}
		if c.rng.IntN(3) == 0 {
			c.tick()
			continue
		}
		// Parts of a step, so that crashes strike between them.
		for _, n := range c.nodes {
			if n.host != nil && c.rng.IntN(3) > 0 {
				n.turn()
			}
			if n.host != nil && c.rng.IntN(3) > 0 {
				n.finishWrite()
			}
		}
		for len(c.wire) > 0 && c.rng.IntN(10) > 0 {
			k := c.rng.IntN(len(c.wire)) // reordered
			p := c.wire[k]
			c.wire = slices.Delete(c.wire, k, k+1)
			c.deliver(p)
		}
	}
	clear(c.cut)
	c.loss = 0
	for _, n := range c.nodes {
		if n.host == nil {
			n.start()
		}
	}
	c.must(reg, "=k end")
	c.must(shard.NewID(shard.Keyspace, 1), "=k end")
	for range 200 {
		c.tick()
	}
	c.agree()
	counts := map[string]int{}
	for id := range c.groups {
		v := c.nodes[0].replica(id).machine.Query([]byte("k"))
		for value := range bytes.SplitSeq(v.Payload, []byte(";")) {
			counts[id.String()+string(value)]++
		}
	}
	applied, unknown := 0, 0
	for _, r := range requests {
		n := counts[r.id.String()+r.value]
		var notLeader *NotLeaderError
		switch {
		case r.answer.n != 1:
			t.Errorf("request %s was answered %d times", r.value, r.answer.n)
		case r.answer.err == nil && n != 1:
			t.Errorf("request %s was answered and is there %d times", r.value, n)
		case errors.As(r.answer.err, &notLeader) && n != 0, errors.Is(r.answer.err, ErrTimeout) && n != 0, errors.Is(r.answer.err, ErrBusy) && n != 0:
			t.Errorf("request %s was refused (%v) and is there", r.value, r.answer.err)
		case n > 1:
			t.Errorf("request %s is there %d times", r.value, n)
		}
		if r.answer.err == nil {
			applied++
		}
		if errors.Is(r.answer.err, ErrOutcomeUnknown) {
			unknown++
		}
	}
	if applied == 0 {
		t.Error("nothing was applied: the test shows nothing")
	}
	t.Logf("%d requests, %d applied, %d unknown", len(requests), applied, unknown)
}

func TestBrokenLogs_are_refused_at_start(t *testing.T) {
	for name, damage := range map[string]func(b store.Batch){
		"missing entry":       func(b store.Batch) { b.Delete(logKey(reg, 12)) },
		"flipped entry":       func(b store.Batch) { b.Set(logKey(reg, 12), []byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")) },
		"missing hard state":  func(b store.Batch) { b.Delete(hardKey(reg)) },
		"another's record":    func(b store.Batch) { b.Set(hardKey(reg), encodeHard(hardKey(reg), 9, hardState{term: 6})) },
		"state ahead of log":  func(b store.Batch) { b.DeleteRange(logKey(reg, 11), logKey(reg, 1<<40)) },
		"applied without sum": func(b store.Batch) { b.Set(appliedKey(reg), binary.AppendUvarint(nil, 7)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, 1, nil)
			for range 5 {
				c.must(reg, "=k v")
			}
			for range 30 {
				c.tick()
			}
			n := c.nodes[0]
			b := n.engine.NewBatch()
			damage(b)
			if err := n.engine.Apply(b, true); err != nil {
				t.Fatal(err)
			}
			cfg := DefaultConfig()
			cfg.Node, cfg.Process = 1, 99
			_, _, err := Load(cfg, n.engine, openRegister, n)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) {
				t.Errorf("Load = %v, want a CorruptError", err)
			}
		})
	}
}
