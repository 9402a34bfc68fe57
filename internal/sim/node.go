package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/payment"
	"hanse/internal/reactor"
	"hanse/internal/replica"
	"hanse/internal/saga"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

const (
	tickInterval = 50 * millisecond
	// ackPatience is how long the receiver of a snapshot may be silent.
	ackPatience = 10 * second
	// deliveryTimeout bounds one delivery to another shard, as in package node.
	deliveryTimeout = 10 * second
)

// node is a machine: a disk that survives, and the process that runs on it while life is not 0.
type node struct {
	w    *World
	id   transport.NodeID
	disk *memstore.Disk
	rng  *random
	// offset and drift are of its clock: wall = true time + offset + drift * time since the beginning.
	offset int64 // ms
	drift  float64
	// stalledUntil holds writes back, pausedUntil everything.
	stalledUntil, pausedUntil int64
	// failing says that the next write fails.
	failing bool
	// boot counts the starts that the cluster may know of, on disk, and this one is number says. Stale says that the disk is an old
	// copy; gone that the node never comes back, and waiting that none has come in its place yet.
	boot, says           uint64
	stale, gone, waiting bool

	life     uint64
	engine   store.Engine
	host     *replica.Host
	appliers []*replica.Applier
	receiver *replica.Receiver
	reactor  *reactor.Reactor
	router   *router
	control  *control
	writing  *replica.Write
	sending  []*stream
	awake    bool
	tasks    [][]*replica.Task // by applier
	applying []bool
	dying    bool
	ticks    int
	leading  map[shard.ID]uint64 // terms, of the shards whose outboxes are delivered here or about to be
	placed   map[string]bool     // keys of orders

	queueBound, readBound int
}

// stream is a snapshot on its way out.
type stream struct {
	s           *replica.Sending
	sent, acked uint64
	ended       bool
	heard       int64
}

func newNode(w *World, id transport.NodeID) *node {
	n := &node{w: w, id: id, disk: memstore.NewDisk(), rng: newRandom(w.plan.Seed, "node "+string(rune('0'+id)))}
	if w.plan.On[Skew] {
		most := int64(w.plan.Rate[Skew] * 1000)
		n.offset = n.rng.between(-most, most)
	}
	if w.plan.On[Drift] {
		n.drift = (2*n.rng.float() - 1) * w.plan.Rate[Drift]
	}
	return n
}

// wall is what the node's clock shows, in ms since 1970.
func (n *node) wall() int64 {
	now := n.w.now / millisecond
	return epoch + n.offset + now + int64(n.drift*float64(now))
}

// mono is where a moment is on the clock of deadlines, which neither jumps nor drifts.
func (n *node) mono(at int64) int64 { return 1 + at/millisecond }

func (n *node) clock() clock.Reading { return clock.Reading{Mono: n.mono(n.w.now), Wall: n.wall()} }

// format writes the first state of all groups.
func (n *node) format() {
	groups := make(map[shard.ID][]replica.Replica)
	for _, id := range n.w.groups {
		groups[id] = n.w.placement(id)
	}
	engine := n.disk.Open()
	if err := replica.Bootstrap(engine, groups, n.id); err != nil {
		panic(err)
	}
	if err := engine.Close(); err != nil {
		panic(err)
	}
}

// start begins a new life.
func (n *node) start() {
	w := n.w
	w.lives++
	n.life = w.lives
	n.says = n.boot + 1
	cfg := replica.DefaultConfig()
	cfg.Node, cfg.Process = n.id, n.life
	w.plan.configure(&cfg)
	n.queueBound, n.readBound = cfg.MaxQueuedCommands, cfg.MaxQueuedReads
	n.engine = w.mutant.engine(n.disk.Open())
	var err error
	n.host, n.appliers, err = replica.Load(cfg, n.engine, n.open, n)
	if err != nil {
		w.fail("restart", "node %d does not start: %v", n.id, err)
		n.life = 0
		return
	}
	n.receiver = replica.NewReceiver(n.engine)
	rc := reactor.DefaultConfig()
	rc.MaxBackoff, rc.StuckRetry = 2*time.Second, 5*time.Second // as much happens in a minute as in a day
	n.reactor = reactor.New(rc, n.rng.next)
	n.router = newRouter(n)
	n.control = newControl(n)
	n.writing, n.sending, n.awake, n.dying, n.leading = nil, nil, false, false, make(map[shard.ID]uint64)
	n.placed = make(map[string]bool)
	n.tasks, n.applying = make([][]*replica.Task, len(n.appliers)), make([]bool, len(n.appliers))
	n.w.after(n.rng.between(0, tickInterval), n, "tick", n.tick)
}

// open makes the machine of a shard, watched by the checkers.
func (n *node) open(id shard.ID, r store.Reader, prefix []byte) (shard.Machine, error) {
	m, err := openShard(n.w)(id, r, prefix)
	if err != nil {
		return nil, err
	}
	if n.host != nil && id.Service() == shard.Order && len(m.Outbox()) > 0 { // opened while the node runs: what came with a snapshot
		n.w.hit(probeSnapshotDuringSaga)
	}
	return &watched{Machine: n.w.mutant.machine(id, n, m), id: id, node: n}, nil
}

// crash ends the process. A write in flight has reached the disk, synced or not, or has not; what else is
// unsynced is lost from a random point on.
func (n *node) crash(why string) {
	if n.life == 0 {
		return
	}
	if n.writing != nil {
		switch n.rng.below(3) {
		case 0:
			_ = n.writing.Execute(n.engine) // done, but nobody knows
		case 1:
			n.writing.Sync = false
			_ = n.writing.Execute(n.engine)
		}
	}
	unsynced := n.disk.Unsynced()
	keep := n.rng.below(unsynced + 1)
	n.w.tell("node %d dies: %s (%d of %d unsynced batches lost)", n.id, why, unsynced-keep, unsynced)
	n.disk.Crash(keep)
	n.life, n.host, n.appliers, n.reactor, n.router, n.control, n.writing, n.sending = 0, nil, nil, nil, nil, nil, nil, nil
	n.pausedUntil, n.stalledUntil, n.failing = 0, 0, false
	n.w.checks.died(n)
	n.w.hit(probeCrash)
	delay := n.rng.exponential(2 * second)
	n.w.after(delay, nil, "restart", func() {
		if n.life == 0 && !n.gone && !(n.w.calm && int(n.id) == n.w.plan.LeaveOut) {
			n.w.tell("node %d starts", n.id)
			n.start()
		}
	})
}

// guard calls fn; a fault of the store ends the process.
func (n *node) guard(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			// A fault of the disk may surface as a panic of a state machine, or of Raft reading its log.
			if text := fmt.Sprint(p); strings.Contains(text, errInjected.Error()) {
				n.crash(text)
				return
			}
			panic(p)
		}
	}()
	fn()
	if n.dying && n.life != 0 {
		n.dying = false
		n.crash("write error")
	}
}

// once makes sure that an answer comes once, and not from a process that has died.
func (n *node) once(done replica.Done) replica.Done {
	life, answered := n.life, false
	return func(r shard.Result, err error) {
		if answered {
			n.w.fail("answer", "node %d answered a request twice: %+v, %v", n.id, r, err)
		}
		answered = true
		if n.life == life {
			done(r, err)
		}
	}
}

// wake has the node take a turn soon.
func (n *node) wake() {
	if !n.awake && n.life != 0 {
		n.awake = true
		n.w.after(n.rng.between(0, 50), n, "turn", n.drive)
	}
}

func (n *node) tick() {
	n.w.after(tickInterval, n, "tick", n.tick)
	n.host.Tick()
	if n.host.DiskStalled() {
		n.crash("the disk hangs")
		return
	}
	for _, a := range n.appliers {
		reports, err := a.Tick(n.mono(n.w.now))
		if err != nil {
			n.dying = true
			return
		}
		for _, r := range reports {
			n.host.Reported(r)
		}
	}
	for _, st := range slices.Clone(n.sending) {
		if n.w.now-st.heard > ackPatience {
			n.end(st, false)
		}
	}
	if n.ticks++; n.ticks%20 == 0 {
		n.w.checks.bounds(n)
	}
	n.router.tick()
	n.reactor.Tick(n.clock())
	n.drive()
}

// drive takes turns until there is nothing more to do now.
func (n *node) drive() {
	n.awake = false
	for range 8 {
		if err := n.host.Broken(); err != nil {
			if !n.stale {
				n.w.fail("old copy", "node %d: %v", n.id, err)
			}
			n.refused(err.Error())
			return
		}
		out := n.host.Turn(n.clock())
		n.transmit(out.Messages)
		if out.Write != nil {
			n.write(out.Write)
			if n.life == 0 {
				return
			}
		}
		committed := false
		for _, t := range out.Tasks {
			n.w.checks.task(n, t)
			committed = committed || len(t.Entries()) > 0 && n.host.Leads(t.Group)
		}
		if committed && n.killed(KillCommitted) {
			return
		}
		for _, t := range out.Tasks {
			n.apply(t)
		}
		if !n.act() {
			return
		}
		if n.dying || len(out.Tasks) == 0 && len(out.Messages) == 0 {
			return
		}
	}
	n.wake()
}

// killed lets a chosen moment kill the process.
func (n *node) killed(f Fault) bool {
	if n.w.calm || !n.rng.chance(n.w.plan.rate(f)) {
		return false
	}
	n.w.hit(probeKilled)
	n.crash("killed: " + f.String())
	return true
}

func (n *node) transmit(messages []replica.Outgoing) {
	n.w.checks.messages(n, messages)
	if edit := n.w.mutant.or().sending; edit != nil {
		messages = edit(n, messages)
	}
	for len(messages) > 0 {
		to, class := messages[0].To, messages[0].Class
		f := frame{from: n, to: n.w.node(to), class: class}
		rest := messages[:0]
		for i := range messages {
			if m := &messages[i]; m.To == to && m.Class == class {
				f.messages = append(f.messages, m.Message)
			} else {
				rest = append(rest, *m)
			}
		}
		messages = rest
		n.w.net.send(f)
	}
}

func (n *node) receive(f frame) {
	switch f.class {
	case transport.Call:
		n.router.receive(f)
	case transport.Bulk:
		for i := range f.messages {
			n.bulk(f.from, &f.messages[i])
		}
	default:
		if len(f.messages) == 0 {
			return // a heartbeat
		}
		n.host.Receive(f.from.id, f.messages)
	}
	n.wake()
}

// write starts the write of a turn.
func (n *node) write(w *replica.Write) {
	if n.writing != nil {
		n.w.fail("host", "node %d has two writes in flight", n.id)
	}
	n.writing = w
	if w.Entries() > 0 && n.killed(KillAppended) {
		return
	}
	delay := n.rng.between(100, 1500)
	if n.w.plan.On[SlowDisk] && !n.w.calm {
		delay += n.rng.exponential(int64(n.w.plan.Rate[SlowDisk] * float64(millisecond)))
	}
	n.w.after(max(delay, n.stalledUntil-n.w.now), n, "written", func() { n.written(w) })
}

func (n *node) written(w *replica.Write) {
	if n.writing != w {
		return // the disk came back early, and it is done
	}
	if n.stalledUntil > n.w.now {
		n.w.after(n.stalledUntil-n.w.now, n, "written", func() { n.written(w) })
		return
	}
	if n.failing {
		n.failing = false
		pick(n.rng, []func(error){n.disk.FailNextSync, n.disk.FailNextWrite, n.disk.FailNextRead})(errInjected)
	}
	if err := w.Execute(n.engine); err != nil {
		n.dying = true
		return
	}
	n.writing = nil
	n.host.Written()
	n.drive()
}

var errInjected = errors.New("injected fault")

// apply runs a task, or queues it behind others of its worker.
func (n *node) apply(t *replica.Task) {
	k := t.Worker
	n.tasks[k] = append(n.tasks[k], t)
	if n.applying[k] {
		return
	}
	if n.w.plan.On[SlowApply] && !n.w.calm && len(t.Entries()) > 0 && n.rng.chance(n.w.plan.Rate[SlowApply]) {
		n.applying[k] = true
		n.w.after(n.rng.exponential(30*millisecond), n, "apply", func() {
			n.applying[k] = false
			n.work(k)
			n.drive()
		})
		return
	}
	n.work(k)
}

func (n *node) work(k int) {
	for len(n.tasks[k]) > 0 && !n.dying {
		t := n.tasks[k][0]
		n.tasks[k] = n.tasks[k][1:]
		rep, err := n.appliers[k].Run(t, n.mono(n.w.now))
		if err != nil {
			if n.w.failure == nil && !errors.Is(err, errInjected) {
				n.w.fail("apply", "node %d, %s: %v", n.id, t.Group, err)
			}
			n.dying = true
			return
		}
		n.host.Reported(rep)
		if s := t.Sending(); s != nil {
			n.sending = append(n.sending, &stream{s: s, heard: n.w.now})
			n.pump()
		}
	}
}

// pump sends chunks while the windows allow.
func (n *node) pump() {
	for _, st := range slices.Clone(n.sending) {
		for !st.ended && st.sent-st.acked < replica.SnapshotWindow {
			m, err := st.s.Next()
			if err != nil {
				n.end(st, false)
				break
			}
			if st.ended = m == nil; st.ended {
				break
			}
			st.sent++
			if edit := n.w.mutant.or().chunk; edit != nil {
				edit(n.w, m)
			}
			n.w.net.send(frame{from: n, to: n.w.node(st.s.To), class: transport.Bulk, messages: []transport.Message{*m}})
		}
	}
}

func (n *node) end(st *stream, ok bool) {
	_ = st.s.Close() // a store that has failed says so at the next write
	n.sending = slices.DeleteFunc(n.sending, func(o *stream) bool { return o == st })
	n.host.SnapshotSent(st.s, ok)
	if ok {
		n.w.tell("node %d has sent node %d a snapshot of %s", n.id, st.s.To, st.s.Group)
		n.w.hit(probeSnapshot)
	}
	n.wake()
}

// bulk takes a chunk of a snapshot, or an answer to one.
func (n *node) bulk(from *node, m *transport.Message) {
	if !replica.IsSnapshotAnswer(m) {
		answer, complete := n.receiver.Chunk(from.id, m)
		n.w.net.send(frame{from: n, to: from, class: transport.Bulk, messages: []transport.Message{{
			Kind: transport.KindSnapshot, Group: m.Group, FromReplica: m.ToReplica, ToReplica: m.FromReplica, ID: m.ID, Body: answer,
		}}})
		if complete != nil {
			n.host.Staged(complete)
		}
		return
	}
	for _, st := range slices.Clone(n.sending) {
		sequence, mine, err := st.s.Answer(m)
		switch {
		case err != nil:
			n.end(st, false)
		case mine:
			st.heard = n.w.now
			st.acked = max(st.acked, sequence+1)
			if st.ended && st.acked == st.sent {
				n.end(st, true)
			}
		}
	}
	n.pump()
}

// Leader implements replica.Observer.
func (n *node) Leader(id shard.ID, term uint64, leader bool) {
	n.w.checks.leads(n, id, term, leader)
	if !leader {
		delete(n.leading, id)
		n.reactor.Resign(id)
		return
	}
	n.leading[id] = term
	// As in package node, the outbox is listed by the applier between two entries, a moment later. By then the leadership may be over.
	delay := n.rng.between(0, 200)
	if !n.w.calm && n.rng.chance(0.1) {
		delay = n.rng.between(0, 2*second)
	}
	n.w.after(delay, n, "list outbox", func() {
		err := n.host.Do(id, func(m shard.Machine) {
			if n.leading[id] == term {
				n.lead(id, term, m.Outbox())
			}
		})
		if err != nil && !errors.Is(err, replica.ErrNoReplica) {
			n.w.fail("host", "node %d leads %s: %v", n.id, id, err)
		}
		n.wake()
	})
}

func (n *node) lead(id shard.ID, term uint64, messages []*shard.Message) {
	if len(messages) > 0 && term > firstTerm+1 {
		n.w.hit(probeOutboxTakenOver)
	}
	if edit := n.w.mutant.or().editOutbox; edit != nil {
		messages = edit(messages)
	}
	n.reactor.Lead(id, term, messages, n.clock())
}

// firstTerm is the term that groups are bootstrapped at.
const firstTerm = 5

// Applied implements replica.Observer.
func (n *node) Applied(id shard.ID, leader bool, a shard.Applied) {
	if leader && len(a.Emitted)+len(a.Finished) > 0 {
		n.reactor.Applied(id, a.Emitted, a.Finished, n.clock())
	}
}

// act carries out what the reactor wants, as package node's courier does; false when the process died over it.
func (n *node) act() bool {
	actions := n.reactor.Take()
	if len(actions.Deliveries) > 0 && n.killed(KillDelivering) {
		return false
	}
	deadline := n.w.now + deliveryTimeout
	for _, d := range actions.Deliveries {
		answered := func(r shard.Result, err error) {
			if r.Pending != "" && d.Message.To.Service() == shard.Inventory {
				n.w.hit(probeInTheWay)
			}
			n.reactor.Answered(d.From, d.Term, d.Message.Seq, r, err, n.clock())
			n.wake()
		}
		if deliver := n.w.mutant.or().delivery; deliver != nil && deliver(n, d, answered) {
			continue
		}
		if d.Message.To == shard.PSP {
			n.w.provider.deliver(n, d, answered)
			continue
		}
		wait := d.Message.To.Service() == shard.Payment
		c := shard.Command{Kind: shard.KindLogic, Payload: d.Payload()}
		n.router.propose(d.Message.To, c, wait, true, deadline, answered)
	}
	for _, p := range actions.Proposals {
		n.host.Propose(p.To, p.Command, replica.Manner{Lazy: p.Lazy}, n.mono(deadline), n.once(func(_ shard.Result, err error) {
			if err != nil && p.Seq != 0 {
				n.reactor.ProposalFailed(p.To, p.Term, p.Seq, n.clock())
			}
		}))
		n.wake()
	}
	return true
}

// callFirst calls the provider for an authorization before it is logged, as package node's courier does.
func (n *node) callFirst(q *request, deadline int64, done replica.Done) bool {
	if q.shard.Service() != shard.Payment || q.command.Kind != shard.KindLogic || n.router.leaders[q.shard] != n.id {
		return false
	}
	call, command := payment.First(q.command.Payload, n.wall())
	if call == nil {
		return false
	}
	to, cmd, wait := q.shard, q.command, q.wait
	n.w.provider.call(n, call, func(a *paymentpb.ProviderAnswer) {
		if n.killed(KillCalled) {
			n.w.hit(probeCalledNotLogged)
			return
		}
		authorize := command.GetAuthorize()
		authorize.Answer = a
		cmd.Payload = encode(command)
		logged := false
		n.host.Propose(to, cmd, replica.Manner{Wait: wait}, n.mono(deadline), func(r shard.Result, err error) {
			if logged = err == nil; !logged {
				n.w.hit(probeCalledNotLogged)
			}
			done(r, err)
		})
		n.tellOrder(authorize, deadline, func() {
			if !logged {
				n.w.hit(probeToldBeforeLogged)
			}
		})
		n.wake()
	})
	return true
}

// tellOrder tells an order what the provider has said, as package node's courier does.
func (n *node) tellOrder(authorize *paymentpb.Authorize, deadline int64, told func()) {
	heard := saga.Heard(authorize)
	if heard == nil {
		return
	}
	to := n.w.plan.Layout.Shard(shard.Order, slotOfOrder(authorize.OrderId))
	n.router.propose(to, shard.Command{Kind: shard.KindLogic, Payload: encode(heard)}, false, true, deadline, func(_ shard.Result, err error) {
		if err == nil {
			told()
		}
	})
}

// reserveEarly reserves tentatively for an order that is about to be logged, as package node's courier does, and reports whether it did. Often its order
// is asked about sooner, and sometimes a key that was placed has been forgotten.
func (n *node) reserveEarly(q *request, deadline int64) bool {
	if q.shard.Service() != shard.Order || q.command.Kind != shard.KindLogic || n.router.leaders[q.shard] != n.id || n.host.Busy() {
		return false
	}
	patience := int64(saga.TentativeTime)
	if n.rng.chance(0.3) {
		patience = n.rng.between(1, 100)
	}
	orderID, ahead := reactor.Tentative(q.command.Payload, n.w.plan.Layout, n.wall(), patience)
	if len(ahead) == 0 || n.rng.chance(0.2) || n.placed[q.command.Key] && n.rng.chance(0.7) {
		return false
	}
	n.placed[q.command.Key] = true
	from := q.shard
	for _, a := range ahead {
		n.reactor.Early(from, a.To, orderID, n.clock())
		c := shard.Command{Kind: shard.KindLogic, Payload: a.Payload}
		n.router.propose(a.To, c, false, true, deadline, func(r shard.Result, err error) {
			held := err == nil && (r.OK() || n.w.mutant.or().held != nil && n.w.mutant.held(r))
			if held {
				n.w.hit(probeHeldEarly)
			}
			n.reactor.EarlyAnswered(from, a.To, orderID, held, n.clock())
			n.wake()
		})
	}
	return true
}

// claim claims a key for a request and then carries it out, as package node's client does.
func (n *node) claim(c *orderpb.ClaimKey, deadline int64, carryOut func(), done replica.Done) {
	cmd := shard.Command{Kind: shard.KindLogic, Payload: saga.ClaimCommand(c)}
	n.router.propose(n.w.plan.Layout.KeyHome(c.Key), cmd, false, true, deadline, func(r shard.Result, err error) {
		if err != nil || !r.OK() {
			done(r, err)
			return
		}
		carryOut()
		n.wake()
	})
}

// machine returns the state machine of a group and the index it stands at, nil while there is none.
func (n *node) machine(id shard.ID) (shard.Machine, uint64) {
	if n.life == 0 {
		return nil, 0
	}
	for _, a := range n.appliers {
		if m, index := a.Machine(id); m != nil {
			return m, index
		}
	}
	return nil, 0
}
