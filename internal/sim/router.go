package sim

import (
	"errors"

	"hanse/internal/reactor"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/transport"
)

// router is package node's router without goroutines: it brings requests to the leaders of their shards by the same
// rules. Times are virtual, in µs.
type router struct {
	n       *node
	leaders map[shard.ID]transport.NodeID
	nextID  uint64
	calls   map[uint64]*call
	order   []uint64 // of calls, by number; answered ones are skipped
}

const (
	firstRoutePause = 10 * millisecond
	maxRoutePause   = 250 * millisecond
	peerPatience    = 2 * second
	maxCalls        = 1 << 16
)

var errUnavailable = errors.New("sim: no answer from a replica that could serve the request")

// request is one attempt's worth of a command or a query.
type request struct {
	id          uint64
	read        bool
	shard       shard.ID
	command     shard.Command
	wait        bool
	consistency replica.Consistency
	atLeast     uint64
	payload     []byte
	timeout     int64
}

type response struct {
	id     uint64
	result shard.Result
	err    error
}

type call struct {
	shard    shard.ID
	to       transport.NodeID
	write    bool
	deadline int64
	done     replica.Done
}

func newRouter(n *node) *router {
	return &router{n: n, leaders: make(map[shard.ID]transport.NodeID), calls: make(map[uint64]*call), nextID: n.life << 32}
}

// tick notes who leads and gives up what is overdue, as watchLeaders and sweep do.
func (r *router) tick() {
	w := r.n.w
	for _, id := range w.groups {
		if leader := r.n.host.Leader(id); leader != 0 {
			r.leaders[id] = leader
		}
	}
	kept := r.order[:0]
	var overdue []*call
	for _, id := range r.order {
		c := r.calls[id]
		if c == nil {
			continue
		}
		leader := r.leaders[c.shard]
		if w.now > c.deadline || !w.net.connected(r.n.id, c.to) || c.write && leader != 0 && leader != c.to {
			overdue = append(overdue, c)
			delete(r.calls, id)
			continue
		}
		kept = append(kept, id)
	}
	r.order = kept
	for _, c := range overdue {
		if r.leaders[c.shard] == c.to {
			delete(r.leaders, c.shard)
		}
		c.done(shard.Result{}, replica.ErrOutcomeUnknown)
	}
}

func (r *router) attempt(to transport.NodeID, q *request, deadline int64, done replica.Done) {
	n := r.n
	if to == n.id {
		ms := n.mono(deadline)
		mutant := n.w.mutant.or()
		if q.read {
			consistency := q.consistency
			if mutant.consistency != nil {
				consistency = mutant.consistency(consistency)
			}
			n.host.Read(q.shard, consistency, q.atLeast, q.payload, ms, n.once(absent(done)))
		} else {
			if mutant.proposing != nil {
				mutant.proposing(n, q)
			}
			answered := n.once(absent(done))
			if n.callFirst(q, deadline, answered) {
				return
			}
			propose := func() {
				manner := replica.Manner{Wait: q.wait, Lazy: reactor.Lazy(q.shard, &q.command)}
				n.host.Propose(q.shard, q.command, manner, ms, answered)
				n.wake()
			}
			if n.reserveEarly(q, deadline) && n.rng.chance(0.05) { // the order lingers: its stock may be asked about before it is there
				n.w.after(n.rng.between(1, 200)*millisecond, n, "place", propose)
			} else {
				propose()
			}
		}
		n.wake()
		return
	}
	sent := *q
	sent.timeout = deadline - n.w.now
	r.nextID++
	sent.id = r.nextID
	if !n.w.net.connected(n.id, to) {
		done(shard.Result{}, errUnavailable)
		return
	}
	r.calls[sent.id] = &call{shard: q.shard, to: to, write: !q.read, deadline: deadline + 100*millisecond, done: done}
	r.order = append(r.order, sent.id)
	n.w.net.send(frame{from: n, to: n.w.node(to), class: transport.Call, request: &sent})
}

// absent makes a replica that is not here, because it has moved, a reason to look elsewhere.
func absent(done replica.Done) replica.Done {
	return func(result shard.Result, err error) {
		if errors.Is(err, replica.ErrNoReplica) {
			err = errUnavailable
		}
		done(result, err)
	}
}

func (r *router) receive(f frame) {
	if f.response != nil {
		c := r.calls[f.response.id]
		delete(r.calls, f.response.id)
		if c != nil {
			c.done(f.response.result, f.response.err)
		}
		return
	}
	q := f.request
	r.attempt(r.n.id, q, r.n.w.now+q.timeout, func(result shard.Result, err error) {
		r.n.w.net.send(frame{from: r.n, to: f.from, class: transport.Call, response: &response{q.id, result, wireError(q.shard, err)}})
	})
}

// wireError is what is left of an error on its way between nodes.
func wireError(id shard.ID, err error) error {
	var notLeader *replica.NotLeaderError
	switch {
	case err == nil, errors.Is(err, replica.ErrBusy), errors.Is(err, replica.ErrOutcomeUnknown):
		return err
	case errors.As(err, &notLeader):
		return &replica.NotLeaderError{Shard: id, Leader: notLeader.Leader}
	}
	return errUnavailable
}

func (r *router) target(id shard.ID, attempt int) transport.NodeID {
	if leader := r.leaders[id]; leader != 0 {
		return leader
	}
	return transport.NodeID((int(r.n.id)-1+attempt)%len(r.n.w.nodes) + 1)
}

func (r *router) learn(id shard.ID, tried transport.NodeID, err error) (again bool) {
	var notLeader *replica.NotLeaderError
	switch {
	case err == nil:
		r.leaders[id] = tried
		return false
	case errors.As(err, &notLeader):
		if notLeader.Leader != tried {
			r.leaders[id] = notLeader.Leader
		}
		return true
	case errors.Is(err, replica.ErrBusy):
		return true
	}
	if r.leaders[id] == tried {
		delete(r.leaders, id)
	}
	return errors.Is(err, errUnavailable)
}

// propose brings a command to its shard's leader; see package node.
func (r *router) propose(id shard.ID, c shard.Command, wait, repeatable bool, deadline int64, done replica.Done) {
	r.try(&request{shard: r.route(id), command: c, wait: wait}, repeatable, deadline, 0, false, done)
}

func (r *router) route(id shard.ID) shard.ID {
	if route := r.n.w.mutant.or().route; route != nil {
		return route(r.n, id)
	}
	return id
}

// read answers a query at the leader, or first at this node's replica.
func (r *router) read(id shard.ID, c replica.Consistency, atLeast uint64, payload []byte, deadline int64, done replica.Done) {
	q := &request{read: true, shard: r.route(id), consistency: c, atLeast: atLeast, payload: payload}
	if c == replica.Linearizable {
		r.try(q, true, deadline, 0, false, done)
		return
	}
	r.attempt(r.n.id, q, min(deadline, r.n.w.now+peerPatience), func(result shard.Result, err error) {
		if err == nil {
			done(result, nil)
			return
		}
		linearizable := *q
		linearizable.consistency = replica.Linearizable
		r.try(&linearizable, true, deadline, 0, false, done)
	})
}

func (r *router) try(q *request, repeatable bool, deadline int64, attempt int, doubt bool, done replica.Done) {
	n := r.n
	to := r.target(q.shard, attempt)
	limit := deadline
	if patience := n.w.now + peerPatience; to != n.id && !q.wait && repeatable && patience < limit {
		limit = patience
	}
	r.attempt(to, q, limit, func(result shard.Result, err error) {
		again := r.learn(q.shard, to, err)
		if errors.Is(err, replica.ErrOutcomeUnknown) {
			doubt = true
			again = repeatable
		}
		pause := min(firstRoutePause<<min(attempt, 5), maxRoutePause)
		if known := r.leaders[q.shard]; attempt == 0 && known != 0 && known != to {
			pause = 0
		}
		if err == nil || !again || n.w.now+pause > deadline {
			if err != nil && doubt {
				err = replica.ErrOutcomeUnknown
			}
			done(result, err)
			return
		}
		n.w.after(pause, n, "route again", func() { r.try(q, repeatable, deadline, attempt+1, doubt, done) })
	})
}
