package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hanse/internal/reactor"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/trace"
	"hanse/internal/transport"
)

const (
	// A request that found no leader is tried again after this pause, doubled each time up to maxRoutePause, or at once when one
	// is heard of.
	firstRoutePause = 10 * time.Millisecond
	maxRoutePause   = 250 * time.Millisecond
	// askPause is how often the requests that wait for a shard's leader ask for it, all together: the fewer wait, the less any of
	// them may sleep.
	askPause = 25 * time.Millisecond
	// A peer that does not answer within peerPatience is taken for dead by this attempt; how the request
	// goes on depends on whether it may be repeated.
	peerPatience = 2 * time.Second
	// doubtAfter is how long a request that may be repeated waits for a node that has just missed heartbeats. When it has died
	// without a word, its shards elect in that time, and only the other nodes with a replica know whom.
	doubtAfter = 600 * time.Millisecond
	// maxCalls bounds the requests to other nodes under way at once.
	maxCalls = 1 << 16
	// sweepCalls is how often overdue requests are looked for.
	sweepCalls = 100 * time.Millisecond
)

// hosted is what the router needs of the replicas on this node; *replica.Node provides it.
type hosted interface {
	Propose(id shard.ID, cmd shard.Command, m replica.Manner, deadline time.Time, done func(shard.Result, error))
	Read(id shard.ID, c replica.Consistency, minIndex uint64, payload []byte, deadline time.Time, done func(shard.Result, error))
}

// router brings requests to the leaders of their shards. All methods may be used concurrently.
type router struct {
	self     transport.NodeID
	replicas hosted
	network  transport.Transport
	hosts    atomic.Pointer[map[shard.ID][]transport.NodeID] // nodes with a replica
	leaders  map[shard.ID]*atomic.Uint64                     // last known leader, 0 for none; of every shard
	// connected says whether a node can be reached; requests to one that cannot are given up.
	connected func(transport.NodeID) bool
	// doubtful says whether a heartbeat to a node is missing.
	doubtful func(transport.NodeID) bool
	// well says whether a node may be chosen where there is a choice.
	well func(transport.NodeID) bool
	// serves says whether this node's replica of a shard may serve: not before the meta shard has confirmed that it is one still.
	serves func(shard.ID) bool
	// moved is told when a node turned out to have no replica of a shard that it was thought to host.
	moved func()
	// callFirst takes over a command that the provider is to be called for before it is logged; false for all others.
	callFirst func(q *request, deadline time.Time, done func(shard.Result, error)) bool
	// reserveEarly is told of commands that are going to be logged here.
	reserveEarly func(q *request, deadline time.Time)
	// answer serves requests to this node itself.
	answer func(q *request, respond func(shard.Result, error))
	remote *remoteLog

	nextID atomic.Uint64
	mu     sync.Mutex
	calls  map[uint64]*call

	parking sync.Mutex
	parked  map[shard.ID]map[*parked]struct{} // requests that wait before they are tried again
}

// parked is a request that waits until its timer fires.
type parked struct{ timer *time.Timer }

// call is a request to another node that waits for its response.
type call struct {
	shard      shard.ID
	to         transport.NodeID
	leader     transport.NodeID // as it was known when the request was sent
	write      bool
	repeatable bool
	sent       time.Time
	deadline   time.Time
	done       func(shard.Result, error)
}

func newRouter(self transport.NodeID, replicas hosted, network transport.Transport, hosts map[shard.ID][]transport.NodeID) *router {
	r := &router{
		self: self, replicas: replicas, network: network,
		leaders: make(map[shard.ID]*atomic.Uint64, len(hosts)), calls: make(map[uint64]*call),
		parked:    make(map[shard.ID]map[*parked]struct{}),
		connected: func(transport.NodeID) bool { return true }, doubtful: func(transport.NodeID) bool { return false },
		well: func(transport.NodeID) bool { return true }, serves: func(shard.ID) bool { return true }, moved: func() {},
		callFirst:    func(*request, time.Time, func(shard.Result, error)) bool { return false },
		reserveEarly: func(*request, time.Time) {},
		answer:       func(_ *request, respond func(shard.Result, error)) { respond(shard.Result{}, errUnavailable) },
		remote:       newRemoteLog(slog.New(slog.DiscardHandler), time.Second),
	}
	r.hosts.Store(&hosts)
	for id := range hosts {
		r.leaders[id] = new(atomic.Uint64)
	}
	// Request numbers of an earlier life of this process must not match late responses.
	r.nextID.Store(rand.Uint64() >> 16)
	return r
}

// setHosts says anew which nodes have replicas of which shards.
func (r *router) setHosts(hosts map[shard.ID][]transport.NodeID) { r.hosts.Store(&hosts) }

// leader returns the last known leader of a shard, 0 for none.
func (r *router) leader(id shard.ID) transport.NodeID {
	if l := r.leaders[id]; l != nil {
		return transport.NodeID(l.Load())
	}
	return 0
}

// run fails requests whose answer is overdue, until ctx ends.
func (r *router) run(ctx context.Context) error {
	t := time.NewTicker(sweepCalls)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			r.sweep(now)
		}
	}
}

// observe notes who leads a shard as the replica here sees it.
func (r *router) observe(id shard.ID, leader transport.NodeID) {
	if l := r.leaders[id]; leader != 0 && l != nil && l.Swap(uint64(leader)) != uint64(leader) {
		r.wake(id)
	}
}

// park calls again after a pause, or as soon as another leader of the shard is known. Where nobody leads, the pause is the
// shorter the fewer wait, so that one request alone does not sleep through an election's end, and many do not flood the nodes. A part
// of it is drawn, or those that came together would all sleep through it together.
func (r *router) park(id shard.ID, pause time.Duration, leaderless bool, again func()) {
	p := new(parked)
	r.parking.Lock()
	defer r.parking.Unlock()
	waiting := r.parked[id]
	if waiting == nil {
		waiting = make(map[*parked]struct{})
		r.parked[id] = waiting
	}
	waiting[p] = struct{}{}
	pause -= rand.N(pause/2 + 1)
	if leaderless {
		pause = min(pause, time.Duration(len(waiting))*askPause)
	}
	p.timer = time.AfterFunc(pause, func() {
		r.parking.Lock()
		_, waits := waiting[p]
		delete(waiting, p)
		r.parking.Unlock()
		if waits { // else it was woken when its pause was over, and is on its way already
			again()
		}
	})
}

// wake lets the requests that wait for a shard's leader go on.
func (r *router) wake(id shard.ID) {
	r.parking.Lock()
	defer r.parking.Unlock()
	for p := range r.parked[id] {
		p.timer.Reset(0)
	}
}

// sweep gives up requests that are overdue, whose receiver is not connected any more, has been replaced as leader, or is doubtful for
// one that can be repeated. They may have been carried out all the same.
func (r *router) sweep(now time.Time) {
	var overdue []*call
	dead := make(map[transport.NodeID]bool)
	r.mu.Lock()
	for id, c := range r.calls {
		if _, known := dead[c.to]; !known {
			dead[c.to] = !r.connected(c.to)
		}
		leader := r.leader(c.shard)
		doubt := c.repeatable && now.Sub(c.sent) > doubtAfter && r.doubtful(c.to)
		if now.After(c.deadline) || dead[c.to] || doubt || c.write && leader != 0 && leader != c.leader {
			overdue = append(overdue, c)
			delete(r.calls, id)
		}
	}
	r.mu.Unlock()
	for _, c := range overdue {
		r.forget(c.shard, c.to)
		c.done(shard.Result{}, replica.ErrOutcomeUnknown)
	}
}

// attempt sends a request once, to this node's replica or to another node. Done is called once.
func (r *router) attempt(to transport.NodeID, q *request, deadline time.Time, done func(shard.Result, error)) {
	if to == r.self {
		if q.op != opPropose && q.op != opRead {
			r.answer(q, done)
			return
		}
		if !r.serves(q.shard) {
			done(shard.Result{}, errUnavailable)
			return
		}
		if q.op == opRead {
			r.replicas.Read(q.shard, q.consistency, q.atLeast, q.payload, deadline, done)
		} else if !r.callFirst(q, deadline, done) {
			r.reserveEarly(q, deadline)
			manner := replica.Manner{Wait: q.wait, Lazy: reactor.Lazy(q.shard, &q.command)}
			r.replicas.Propose(q.shard, q.command, manner, deadline, done)
		}
		return
	}
	if !r.connected(to) { // its queue would take it all the same, and nobody could say then whether it ever left
		done(shard.Result{}, errUnavailable)
		return
	}
	now := time.Now()
	q.timeout = deadline.Sub(now)
	body := q.append(nil) // before the call is known: given up, it is tried again, with another timeout
	id := r.nextID.Add(1)
	c := &call{
		shard: q.shard, to: to, leader: to, write: q.op == opPropose, repeatable: q.repeatable, sent: now, deadline: deadline.Add(sweepCalls), done: done,
	}
	if q.relay {
		c.leader = r.leader(q.shard)
	}
	r.mu.Lock()
	full := len(r.calls) >= maxCalls
	if !full {
		r.calls[id] = c
	}
	r.mu.Unlock()
	if full {
		done(shard.Result{}, replica.ErrBusy)
		return
	}
	sent := r.network.Send(to, transport.Call, transport.Message{Kind: transport.KindRequest, ID: id, Body: body})
	if !sent && r.take(id) != nil {
		done(shard.Result{}, errUnavailable)
	}
}

func (r *router) take(id uint64) *call {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.calls[id]
	delete(r.calls, id)
	return c
}

// receive handles requests and responses from other nodes.
func (r *router) receive(from transport.NodeID, messages []transport.Message) {
	for i := range messages {
		m := &messages[i]
		if m.Kind == transport.KindResponse {
			if c := r.take(m.ID); c != nil {
				result, err := decodeResponse(c.shard, m.Body)
				c.done(result, err)
			}
			continue
		}
		id, start := m.ID, time.Now()
		q, err := decodeRequest(m.Body)
		respond := func(result shard.Result, err error) {
			r.network.Send(from, transport.Call, transport.Message{
				Kind: transport.KindResponse, ID: id, Body: encodeResponse(result, err),
			})
			r.remote.answered(from, &q, time.Since(start), err)
		}
		if err != nil {
			respond(shard.Result{}, errUnavailable)
			continue
		}
		r.pass(from, &q, start.Add(q.timeout), respond)
	}
}

// pass has a request from another node answered by this node's own replica; or by the leader, once, when the sender does not reach that. A
// request never travels further, or nodes with stale tables could pass it back and forth.
func (r *router) pass(from transport.NodeID, q *request, deadline time.Time, respond func(shard.Result, error)) {
	leader := r.leader(q.shard)
	if !q.relay || leader == 0 || leader == r.self || leader == from {
		r.attempt(r.self, q, deadline, respond)
		return
	}
	q.relay = false
	r.attempt(leader, q, deadline, func(result shard.Result, err error) {
		r.learn(q.shard, leader, err)
		respond(result, err)
	})
}

// relay returns a host of a shard that may pass a request on to the leader, 0 when that can be asked itself, or nobody can.
func (r *router) relay(id shard.ID, leader transport.NodeID, attempt int) transport.NodeID {
	if leader == 0 || leader == r.self || r.connected(leader) {
		return 0
	}
	between := slices.DeleteFunc(slices.Clone(r.able(id)), func(h transport.NodeID) bool { return h == leader || h == r.self || !r.connected(h) })
	if len(between) == 0 {
		return 0
	}
	return between[attempt%len(between)]
}

// target picks the node to try: the known leader, and without one the hosts in turn, this node first.
func (r *router) target(id shard.ID, attempt int) transport.NodeID {
	if leader := r.leader(id); leader != 0 {
		return leader
	}
	hosts := r.able(id)
	for i, h := range hosts {
		if h == r.self {
			return hosts[(i+attempt)%len(hosts)]
		}
	}
	return hosts[attempt%len(hosts)]
}

// able returns the hosts of a shard that are well, all of them when none is, and this node when there is none at all.
func (r *router) able(id shard.ID) []transport.NodeID {
	all := (*r.hosts.Load())[id]
	if len(all) == 0 {
		return []transport.NodeID{r.self}
	}
	for i, h := range all {
		if h == r.self || r.well(h) {
			continue
		}
		able := slices.Clone(all[:i])
		for _, h := range all[i:] {
			if h == r.self || r.well(h) {
				able = append(able, h)
			}
		}
		if len(able) > 0 {
			return able
		}
		break
	}
	return all
}

// reaches says whether a node can be reached; this one can. One that is not well votes all the same: it may have come back just now, or be
// about to hand its leaderships over.
func (r *router) reaches(n transport.NodeID) bool { return n == r.self || r.connected(n) }

// lost reports whether too few of a shard's hosts can be reached from here for it to have a leader among them, and none that has been asked so
// far knows of another. If the shard has one all the same, this node is the one that is cut off, and the caller had better ask another.
func (r *router) lost(id shard.ID, attempt int) bool {
	if attempt+1 < len(r.able(id)) || r.relay(id, r.leader(id), attempt) != 0 {
		return false
	}
	hosts := (*r.hosts.Load())[id]
	reached := 0
	for _, h := range hosts {
		if r.reaches(h) {
			reached++
		}
	}
	return len(hosts) > 0 && reached <= len(hosts)/2
}

// missing names the hosts of a shard that cannot be reached, for people: "; of its nodes 1, 4, 5 these are missing: 4, 5". Empty when
// none is.
func (r *router) missing(id shard.ID) string {
	var all, away []uint64
	for _, h := range slices.Sorted(slices.Values((*r.hosts.Load())[id])) {
		all = append(all, uint64(h))
		if !r.reaches(h) {
			away = append(away, uint64(h))
		}
	}
	if len(away) == 0 {
		return ""
	}
	return fmt.Sprintf("; of its nodes %s these are missing: %s", peerList(all), peerList(away))
}

// forget notes that a node does not lead a shard any more.
func (r *router) forget(id shard.ID, was transport.NodeID) {
	if l := r.leaders[id]; l != nil {
		l.CompareAndSwap(uint64(was), 0)
	}
}

// learn notes what an attempt told about the leader, and reports whether the request was certainly
// not carried out and may go to another node.
func (r *router) learn(id shard.ID, tried transport.NodeID, err error) (again bool) {
	if err == nil {
		r.observe(id, tried)
		return false
	}
	var notLeader *replica.NotLeaderError // on the heap: not for those who need none
	switch {
	case errors.As(err, &notLeader):
		if notLeader.Leader != tried {
			r.forget(id, tried)
			r.observe(id, notLeader.Leader)
		}
		return true
	case errors.Is(err, replica.ErrBusy):
		return true
	case errors.Is(err, replica.ErrNoReplica): // the route is of another time
		r.forget(id, tried)
		r.moved()
		return true
	}
	r.forget(id, tried)
	return errors.Is(err, errUnavailable)
}

// propose brings a command to its shard's leader and calls done once with the answer. It goes on over leader
// changes until the deadline as long as the command was certainly not carried out, or may be repeated (repeatable:
// the receiver recognizes a retry), and a majority of the shard's hosts can be reached. A *replica.NotLeaderError, ErrBusy or
// errUnavailable at the end means that nothing happened, ErrOutcomeUnknown that it may have.
func (r *router) propose(t trace.ID, id shard.ID, cmd shard.Command, wait, repeatable bool, deadline time.Time, done func(shard.Result, error)) {
	r.try(&request{op: opPropose, shard: id, trace: t, command: cmd, wait: wait, repeatable: repeatable}, deadline, 0, false, done)
}

// deliver brings a message of this node's own outboxes to a shard as propose does a caller's, but goes on until the deadline: there is no
// other node to ask, and a message that failed is tried again the later, the oftener it has.
func (r *router) deliver(id shard.ID, cmd shard.Command, wait bool, deadline time.Time, done func(shard.Result, error)) {
	r.try(&request{op: opPropose, shard: id, command: cmd, wait: wait, repeatable: true, patient: true}, deadline, 0, false, done)
}

func (r *router) try(q *request, deadline time.Time, attempt int, doubt bool, done func(shard.Result, error)) {
	to := r.target(q.shard, attempt)
	q.relay = false
	tried := to // what is learned is about this one
	if leader := r.leader(q.shard); leader != 0 && leader != r.self && (attempt > 0 || r.doubtful(leader)) {
		if between := r.relay(q.shard, leader, attempt); between != 0 {
			to, tried, q.relay = between, leader, true
		}
	}
	limit := deadline
	if patience := time.Now().Add(peerPatience); to != r.self && !q.wait && q.repeatable && patience.Before(limit) {
		limit = patience
	}
	r.attempt(to, q, limit, func(result shard.Result, err error) {
		again := true
		if err != nil || !q.relay { // one that was carried out may have been passed to another than we take for the leader
			again = r.learn(q.shard, tried, err)
		}
		if err == nil {
			done(result, nil)
			return
		}
		doubt := doubt
		if errors.Is(err, replica.ErrOutcomeUnknown) {
			doubt = true
			again = q.repeatable
		}
		pause := min(firstRoutePause<<min(attempt, 5), maxRoutePause)
		if known := r.leader(q.shard); attempt == 0 && known != 0 && known != to {
			pause = 0 // we were told who leads
		}
		if !again || time.Now().Add(pause).After(deadline) || !q.patient && !errors.Is(err, replica.ErrBusy) && r.lost(q.shard, attempt) {
			if doubt {
				err = replica.ErrOutcomeUnknown
			}
			done(result, err)
			return
		}
		// One that is busy is left alone for as long as the pause says: it is there, and waking its callers would not help it.
		leaderless := !errors.Is(err, replica.ErrBusy)
		r.park(q.shard, pause, leaderless, func() { r.try(q, deadline, attempt+1, doubt, done) })
	})
}

// read answers a query at the leader (Linearizable) or at any replica, this node's first.
func (r *router) read(ctx context.Context, id shard.ID, c replica.Consistency, atLeast uint64, payload []byte, deadline time.Time) (shard.Result, error) {
	q := &request{op: opRead, shard: id, trace: trace.Of(ctx), consistency: c, atLeast: atLeast, payload: payload}
	type answer struct {
		result shard.Result
		err    error
	}
	answers := make(chan answer, 1)
	done := func(result shard.Result, err error) { answers <- answer{result, err} }
	if c != replica.Linearizable {
		// One attempt at the nearest replica; when it cannot serve, the leader can.
		r.attempt(r.nearest(id), q, min2(deadline, time.Now().Add(peerPatience)), done)
		if a := <-answers; a.err == nil {
			return a.result, nil
		}
		q.consistency = replica.Linearizable
	}
	q.repeatable = true
	r.try(q, deadline, 0, false, done)
	select {
	case a := <-answers:
		return a.result, a.err
	case <-ctx.Done():
		return shard.Result{}, ctx.Err()
	}
}

func (r *router) nearest(id shard.ID) transport.NodeID {
	hosts := r.able(id)
	if slices.Contains(hosts, r.self) {
		return r.self
	}
	return hosts[0]
}

func min2(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
