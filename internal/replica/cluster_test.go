package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"hanse/internal/clock"
	"hanse/internal/hlc"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

// register is a shard whose commands set a key to a value, wait for a key to be settled or set a timer.
type register struct {
	rows    *shard.Table[[]byte]
	settled *shard.Table[[]byte]
}

var bytesCodec = shard.Codec[[]byte]{
	Append: func(dst, v []byte) []byte { return append(dst, v...) },
	Decode: func(data []byte) ([]byte, error) { return bytes.Clone(data), nil },
	Size:   func(v []byte) int { return len(v) },
}

func openRegister(_ shard.ID, r store.Reader, prefix []byte) (shard.Machine, error) {
	return shard.Open(r, prefix, func(s *shard.State) shard.Logic {
		return &register{rows: shard.NewTable(s, 'r', bytesCodec, 100), settled: shard.NewTable(s, 's', bytesCodec, 100)}
	})
}

// Apply: "=key value" appends value to key, ">key" waits for key, "!key" settles it, "@key" sets its timer.
func (l *register) Apply(tx *shard.Tx, payload []byte) shard.Result {
	key, value, _ := bytes.Cut(payload[1:], []byte(" "))
	switch payload[0] {
	case '=':
		old, _ := l.rows.Find(string(key))
		l.rows.Put(string(key), slices.Concat(old, value, []byte(";")))
		tx.Publish(payload)
		return shard.Result{Payload: bytes.Clone(value)}
	case '>':
		return shard.Result{Pending: string(key)}
	case '!':
		l.settled.Put(string(key), []byte("settled"))
		tx.Settle(string(key))
	case '@':
		tx.Wake(tx.Now+hlc.FromMillis(1000), string(key))
	}
	return shard.Result{}
}

func (l *register) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *register) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}

func (l *register) Due(_ *shard.Tx, key string) { l.rows.Put(key, []byte("due;")) }

func (l *register) Query(payload []byte) shard.Result {
	v, ok := l.rows.Find(string(payload))
	if !ok {
		return shard.Result{Code: "not_found"}
	}
	return shard.Result{Payload: v}
}

func (l *register) View(key string) (shard.Result, bool) {
	v, ok := l.settled.Find(key)
	return shard.Result{Payload: v}, ok
}

// fleet drives the hosts of some nodes by hand, in virtual time, in one goroutine.
type fleet struct {
	t      *testing.T
	rng    *rand.Rand
	now    int64
	nodes  []*testNode
	wire   []parcel
	cut    map[[2]transport.NodeID]bool
	loss   float64
	config func(*Config)
	groups map[shard.ID][]Replica
	// applied remembers the bytes of each applied entry by group and index: log matching is checked as it goes.
	applied map[shard.ID]map[uint64]string
	lives   uint64
}

type parcel struct {
	from, to transport.NodeID
	class    transport.Class
	message  transport.Message
}

type testNode struct {
	c        *fleet
	id       transport.NodeID
	disk     *memstore.Disk
	engine   *memstore.Store
	host     *Host
	appliers []*Applier
	receiver *Receiver
	write    *Write
	sending  []*streamState
	leading  map[shard.ID]uint64
	skew     int64 // ms that its wall clock is ahead
}

type streamState struct {
	s           *Sending
	sent, acked uint64
	ended       bool
}

func newCluster(t *testing.T, nodes, shards int, config func(*Config)) *fleet {
	cryptotest.SetGlobalRandom(t, 1)
	c := &fleet{
		t: t, rng: rand.New(rand.NewPCG(1, 2)), now: 1_000_000, cut: make(map[[2]transport.NodeID]bool), config: config,
		groups: make(map[shard.ID][]Replica), applied: make(map[shard.ID]map[uint64]string),
	}
	for i := range shards {
		id := shard.NewID(shard.Keyspace, i)
		c.applied[id] = make(map[uint64]string)
		for n := range nodes {
			c.groups[id] = append(c.groups[id], Replica{ID: uint64(n + 1), Node: transport.NodeID(n + 1)})
		}
	}
	for i := range nodes {
		n := &testNode{c: c, id: transport.NodeID(i + 1), disk: memstore.NewDisk()}
		c.nodes = append(c.nodes, n)
		n.engine = n.disk.Open()
		if err := Bootstrap(n.engine, c.groups, n.id); err != nil {
			t.Fatal(err)
		}
		n.start()
	}
	return c
}

func (n *testNode) start() {
	n.c.lives++
	cfg := DefaultConfig()
	cfg.Node, cfg.Process, cfg.ApplyWorkers = n.id, n.c.lives, 2
	if n.c.config != nil {
		n.c.config(&cfg)
	}
	n.leading = make(map[shard.ID]uint64)
	var err error
	n.host, n.appliers, err = Load(cfg, n.engine, openRegister, n)
	if err != nil {
		n.c.t.Fatalf("node %d does not start: %v", n.id, err)
	}
	n.receiver = NewReceiver(n.engine)
	n.write, n.sending = nil, nil
}

// crash loses what was not synced, all or a part of it, and stops the node.
func (n *testNode) crash() {
	n.host.stop() // answers whoever waits: the connection breaks
	n.host = nil
	n.disk.Crash(n.c.rng.IntN(n.disk.Unsynced() + 1))
	n.engine = n.disk.Open()
}

func (n *testNode) Leader(id shard.ID, term uint64, leader bool) {
	if leader {
		n.leading[id] = term
		for _, other := range n.c.nodes {
			if other != n && other.host != nil && other.leading[id] == term {
				n.c.t.Fatalf("nodes %d and %d both lead %s in term %d", n.id, other.id, id, term)
			}
		}
	} else {
		delete(n.leading, id)
	}
}

func (n *testNode) Applied(shard.ID, bool, shard.Applied) {}

// turn runs one turn of the host and all that it asks for except the write.
func (n *testNode) turn() {
	out := n.host.Turn(clock.Reading{Mono: n.c.now, Wall: n.c.now + n.skew})
	for _, m := range out.Messages {
		n.c.wire = append(n.c.wire, parcel{n.id, m.To, m.Class, m.Message})
	}
	if out.Write != nil {
		if n.write != nil {
			n.c.t.Fatalf("node %d has two writes in flight", n.id)
		}
		n.write = out.Write
	}
	for _, task := range out.Tasks {
		n.c.checkTask(task)
		rep, err := n.appliers[task.Worker].Run(task, n.c.now)
		if err != nil {
			n.c.t.Fatalf("node %d: %v", n.id, err)
		}
		n.host.Reported(rep)
		if s := task.Sending(); s != nil {
			n.sending = append(n.sending, &streamState{s: s})
		}
	}
	n.stream()
}

// checkTask compares what is applied with what other replicas applied at the same place.
func (c *fleet) checkTask(t *Task) {
	for _, e := range t.entries {
		image := fmt.Sprintf("%d %x", e.GetTerm(), e.Data)
		if before, ok := c.applied[t.Group][e.GetIndex()]; ok && before != image {
			c.t.Fatalf("%s: entry %d differs between replicas", t.Group, e.GetIndex())
		}
		c.applied[t.Group][e.GetIndex()] = image
	}
}

func (n *testNode) stream() {
	for _, st := range n.sending {
		for !st.ended && st.sent-st.acked < snapshotWindow {
			m, err := st.s.Next()
			if err != nil {
				n.c.t.Fatal(err)
			}
			if st.ended = m == nil; !st.ended {
				st.sent++
				n.c.wire = append(n.c.wire, parcel{n.id, st.s.To, transport.Bulk, *m})
			}
		}
	}
}

func (n *testNode) end(st *streamState, ok bool) {
	if err := st.s.Close(); err != nil {
		n.c.t.Fatal(err)
	}
	n.sending = slices.DeleteFunc(n.sending, func(o *streamState) bool { return o == st })
	n.host.SnapshotSent(st.s, ok)
}

// finishWrite lets the write in flight end.
func (n *testNode) finishWrite() {
	if w := n.write; w != nil {
		n.write = nil
		if err := w.Execute(n.engine); err != nil {
			n.c.t.Fatalf("node %d: %v", n.id, err)
		}
		n.host.Written()
	}
}

func (c *fleet) node(id transport.NodeID) *testNode { return c.nodes[id-1] }

func (c *fleet) deliver(p parcel) {
	n := c.node(p.to)
	if n.host == nil || c.cut[[2]transport.NodeID{p.from, p.to}] || c.rng.Float64() < c.loss {
		return
	}
	if p.class != transport.Bulk {
		n.host.Receive(p.from, []transport.Message{p.message})
		return
	}
	m := &p.message
	if m.Body[0] != chunkAck && m.Body[0] != chunkNo {
		answer, complete := n.receiver.Chunk(p.from, m)
		c.wire = append(c.wire, parcel{n.id, p.from, transport.Bulk, transport.Message{
			Kind: transport.KindSnapshot, Group: m.Group, ID: m.ID, Body: answer,
		}})
		if complete != nil {
			n.host.Staged(complete)
		}
		return
	}
	for _, st := range slices.Clone(n.sending) {
		sequence, mine, err := st.s.Answer(m)
		if err != nil {
			n.end(st, false)
		} else if mine {
			st.acked = max(st.acked, sequence+1)
			if st.ended && st.acked == st.sent {
				n.end(st, true)
			}
		}
	}
	n.stream()
}

// step lets everything under way arrive once: messages, then turns, then writes.
func (c *fleet) step() {
	wire := c.wire
	c.wire = nil
	for _, p := range wire {
		c.deliver(p)
	}
	for _, n := range c.nodes {
		if n.host != nil {
			n.turn()
		}
	}
	for _, n := range c.nodes {
		if n.host != nil {
			n.finishWrite()
		}
	}
}

// tick lets 50 ms pass on every node.
func (c *fleet) tick() {
	c.now += 50
	for _, n := range c.nodes {
		if n.host == nil {
			continue
		}
		n.host.Tick()
		for _, a := range n.appliers {
			reports, err := a.Tick(c.now)
			if err != nil {
				c.t.Fatal(err)
			}
			for _, r := range reports {
				n.host.Reported(r)
			}
		}
		for _, st := range slices.Clone(n.sending) {
			if c.rng.IntN(100) == 0 { // a lost chunk ends a stream
				n.end(st, false)
			}
		}
	}
	for range 6 {
		c.step()
	}
}

// until ticks until ok, for at most a minute of virtual time.
func (c *fleet) until(what string, ok func() bool) {
	c.t.Helper()
	for range 1200 {
		if ok() {
			return
		}
		c.tick()
	}
	c.t.Fatalf("not within a minute: %s", what)
}

// leader returns the node that leads id in the newest term and can be reached, nil for none.
func (c *fleet) leader(id shard.ID) *testNode {
	var best *testNode
	for _, n := range c.nodes {
		if n.host != nil && n.host.groups[id] != nil && n.host.groups[id].leads() && (best == nil || n.host.groups[id].leadTerm > best.host.groups[id].leadTerm) {
			best = n
		}
	}
	return best
}

// answer is what a request came to.
type answer struct {
	n      int
	result shard.Result
	err    error
}

func (a *answer) done(r shard.Result, err error) { a.n, a.result, a.err = a.n+1, r, err }

func (n *testNode) propose(id shard.ID, command string, wait bool) *answer {
	a := new(answer)
	n.host.Propose(id, shard.Command{Kind: shard.KindLogic, Payload: []byte(command)}, Manner{Wait: wait}, n.c.now+5000, a.done)
	return a
}

func (n *testNode) read(id shard.ID, c Consistency, atLeast uint64, key string) *answer {
	a := new(answer)
	n.host.Read(id, c, atLeast, []byte(key), n.c.now+5000, a.done)
	return a
}

// must proposes at the leader and waits for the result.
func (c *fleet) must(id shard.ID, command string) shard.Result {
	c.t.Helper()
	var a *answer
	c.until("accept "+command, func() bool {
		n := c.leader(id)
		if n == nil {
			return false
		}
		if a == nil || a.n > 0 && a.err != nil {
			a = n.propose(id, command, false)
		}
		return a.n > 0 && a.err == nil
	})
	return a.result
}

// agree waits until all running replicas have applied the same and are equal.
func (c *fleet) agree() {
	c.t.Helper()
	for id := range c.groups {
		c.until("replicas of "+id.String()+" agree", func() bool {
			var index uint64
			var hash uint64
			for i, n := range c.nodes {
				if n.host == nil {
					continue
				}
				r := n.replica(id)
				if r.machine == nil {
					return false
				}
				if i > 0 && index != 0 && (r.state.index != index) {
					return false
				}
				if index != 0 && r.machine.Hash() != hash {
					c.t.Fatalf("%s: node %d has another state at index %d", id, n.id, index)
				}
				index, hash = r.state.index, r.machine.Hash()
			}
			return true
		})
	}
}

func (n *testNode) replica(id shard.ID) *applied {
	for _, a := range n.appliers {
		if r := a.replicas[id]; r != nil {
			return r
		}
	}
	return nil
}

var reg = shard.NewID(shard.Keyspace, 0)

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
	for range 5 {
		all = append(all, c.nodes[0].propose(reg, "=k v", false))
	}
	if !errors.Is(all[3].err, ErrBusy) || !errors.Is(all[4].err, ErrBusy) {
		t.Errorf("answers 4 and 5: %v, %v, want ErrBusy", all[3].err, all[4].err)
	}
	c.until("the others", func() bool { return all[0].n+all[1].n+all[2].n == 3 && all[0].err == nil })
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
