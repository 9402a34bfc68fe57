package replica

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

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

func (l *register) Settled(key string) bool {
	_, ok := l.settled.Find(key)
	return ok
}

func (l *register) View(key string) shard.Result {
	v, _ := l.settled.Find(key)
	return shard.Result{Payload: v}
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
func (c *fleet) step() { c.stepBut(nil) }

// stepBut is step for all nodes but one, which is sent messages and does nothing.
func (c *fleet) stepBut(idle *testNode) {
	wire := c.wire
	c.wire = nil
	for _, p := range wire {
		c.deliver(p)
	}
	for _, n := range c.nodes {
		if n.host != nil && n != idle {
			n.turn()
		}
	}
	for _, n := range c.nodes {
		if n.host != nil && n != idle {
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
