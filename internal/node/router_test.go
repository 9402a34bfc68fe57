package node

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/trace"
	"hanse/internal/transport"
)

// elector is a shard's only replica, which leads from a certain time on, and counts how often it was asked before.
type elector struct {
	from  time.Time
	mu    sync.Mutex
	asked int
}

func (e *elector) Propose(id shard.ID, _ shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Now().Before(e.from) {
		e.asked++
		go done(shard.Result{}, &replica.NotLeaderError{Shard: id})
		return
	}
	go done(shard.Result{}, nil)
}

func (e *elector) Read(shard.ID, replica.Consistency, uint64, []byte, time.Time, func(shard.Result, error)) {
}

func TestRouter_does_not_sleep_through_the_end_of_an_election(t *testing.T) {
	const election = 700 * time.Millisecond
	id := shard.NewID(shard.Order, 0)
	for name, test := range map[string]struct {
		requests int
		// told is when the router hears of the new leader, 0 for never.
		told   time.Duration
		within time.Duration // of the election's end
		asks   int           // at most, by all of them
	}{
		"one request asks often":                     {requests: 1, within: askPause, asks: 40},
		"one of many finds out, and the others hear": {requests: 1000, within: 2 * askPause, asks: 12_000},
		"told by a replica":                          {requests: 1000, told: election + time.Millisecond, within: time.Millisecond, asks: 12_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				replicas := &elector{from: begin.Add(election)}
				r := newRouter(1, replicas, nil, map[shard.ID][]transport.NodeID{id: {1}})
				answers := make(chan error, test.requests)
				for range test.requests {
					r.propose(trace.ID{}, id, shard.Command{}, false, true, begin.Add(time.Minute), func(_ shard.Result, err error) { answers <- err })
				}
				if test.told > 0 {
					time.AfterFunc(test.told, func() { r.observe(id, 1) })
				}
				for range test.requests {
					if err := <-answers; err != nil {
						t.Fatal(err)
					}
				}
				if late := time.Since(begin) - election; late > test.within {
					t.Errorf("the last of %d requests had its answer %v after the election, want at most %v", test.requests, late, test.within)
				}
				if replicas.asked > test.asks {
					t.Errorf("%d requests asked %d times, want at most %d", test.requests, replicas.asked, test.asks)
				}
			})
		})
	}
}

// silent swallows what is sent to one node, and brings the rest to the other router.
type silent struct {
	wired
	node transport.NodeID
}

func (s *silent) Send(to transport.NodeID, class transport.Class, m transport.Message) bool {
	return to == s.node || s.wired.Send(to, class, m)
}

func TestRouter_asks_elsewhere_when_the_leaders_node_is_in_doubt(t *testing.T) {
	id := shard.NewID(shard.Order, 0)
	for name, test := range map[string]struct {
		doubtful, repeatable bool
		want                 error
		within               time.Duration
	}{
		"a request that may be repeated goes elsewhere": {doubtful: true, repeatable: true, within: doubtAfter + 3*sweepCalls},
		"one that may not waits":                        {doubtful: true, want: replica.ErrOutcomeUnknown, within: time.Minute},
		"a node that is well is waited for":             {repeatable: true, within: peerPatience + 3*sweepCalls},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := map[shard.ID][]transport.NodeID{id: {2, 3}}
				door, leader := newRouter(1, nil, nil, hosts), newRouter(3, echo{}, nil, hosts)
				door.network, leader.network = &silent{wired{from: door, to: leader}, 2}, &wired{from: leader, to: door}
				door.observe(id, 2)
				door.doubtful = func(n transport.NodeID) bool { return test.doubtful && n == 2 }
				go func() { _ = door.run(t.Context()) }() // it ends with the test, and has no errors

				begin := time.Now()
				answers := make(chan error, 1)
				door.propose(trace.ID{}, id, shard.Command{}, false, test.repeatable, begin.Add(10*time.Second), func(_ shard.Result, err error) { answers <- err })
				if err := <-answers; !errors.Is(err, test.want) {
					t.Errorf("propose = %v, want %v", err, test.want)
				}
				if took := time.Since(begin); took > test.within || test.repeatable && !test.doubtful && took < peerPatience {
					t.Errorf("answered after %v, want at most %v", took, test.within)
				}
			})
		})
	}
}

// nobody cannot be reached.
type nobody struct{ transport.Transport }

func (nobody) Send(transport.NodeID, transport.Class, transport.Message) bool { return false }

// A node that reaches too few of a shard's hosts says so at once, for another may reach them. What its own outboxes hold waits: it has
// nobody else to ask.
func TestRouter_says_at_once_that_it_is_cut_off(t *testing.T) {
	id := shard.NewID(shard.Order, 0)
	for name, test := range map[string]struct {
		away    []transport.NodeID
		unwell  []transport.NodeID // reached, but stopping or on probation
		deliver bool
		after   time.Duration
	}{
		"two of three are away":                        {away: []transport.NodeID{2, 3}, after: 0},
		"its outbox waits all the same":                {away: []transport.NodeID{2, 3}, deliver: true, after: 10 * time.Second},
		"an election, one of three is away":            {away: []transport.NodeID{3}, after: 10 * time.Second},
		"one has just stopped, one has just come back": {away: []transport.NodeID{3}, unwell: []transport.NodeID{2}, after: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				r := newRouter(1, &elector{from: begin.Add(time.Hour)}, nil, map[shard.ID][]transport.NodeID{id: {1, 2, 3}})
				r.network = nobody{}
				r.observe(id, 1) // only this node is asked, and leads no longer
				r.connected = func(n transport.NodeID) bool { return !slices.Contains(test.away, n) }
				r.well = func(n transport.NodeID) bool { return r.connected(n) && !slices.Contains(test.unwell, n) }
				answers := make(chan error, 1)
				done := func(_ shard.Result, err error) { answers <- err }
				if test.deliver {
					r.deliver(id, shard.Command{}, false, begin.Add(10*time.Second), done)
				} else {
					r.propose(trace.ID{}, id, shard.Command{}, false, true, begin.Add(10*time.Second), done)
				}
				if err := <-answers; err == nil {
					t.Fatal("answered without a leader")
				}
				if took := time.Since(begin); took < test.after-2*maxRoutePause || took > test.after+maxRoutePause {
					t.Errorf("answered after %v, want %v", took, test.after)
				}
			})
		})
	}
}

// mesh connects routers, but for those that do not hear each other.
type mesh struct {
	transport.Transport
	self    transport.NodeID
	routers map[transport.NodeID]*router
	cut     map[[2]transport.NodeID]bool
	sent    *atomic.Int64 // requests
}

func (m *mesh) reach(to transport.NodeID) bool {
	return !m.cut[[2]transport.NodeID{m.self, to}] && !m.cut[[2]transport.NodeID{to, m.self}]
}

// Send takes what goes to one that does not hear it too, as a queue does.
func (m *mesh) Send(to transport.NodeID, _ transport.Class, msg transport.Message) bool {
	if !m.reach(to) {
		return true
	}
	if msg.Kind == transport.KindRequest {
		m.sent.Add(1)
	}
	go m.routers[to].receive(m.self, []transport.Message{msg})
	return true
}

// namer is a replica that names its leader.
type namer struct{ leader transport.NodeID }

func (f namer) Propose(id shard.ID, _ shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	done(shard.Result{}, &replica.NotLeaderError{Shard: id, Leader: f.leader})
}

func (f namer) Read(id shard.ID, _ replica.Consistency, _ uint64, _ []byte, _ time.Time, done func(shard.Result, error)) {
	done(shard.Result{}, &replica.NotLeaderError{Shard: id, Leader: f.leader})
}

// orphan is a replica that names its leader until it has noticed that there is none.
type orphan struct {
	namer
	until time.Time
}

func (o *orphan) Propose(id shard.ID, c shard.Command, m replica.Manner, deadline time.Time, done func(shard.Result, error)) {
	names := o.namer
	if !time.Now().Before(o.until) {
		names.leader = 0
	}
	names.Propose(id, c, m, deadline, done)
}

// A cable between two nodes may break while a third hears both: that one passes requests on.
func TestRouter_goes_round_a_broken_cable(t *testing.T) {
	id := shard.NewID(shard.Order, 0)
	for name, test := range map[string]struct {
		hosts []transport.NodeID // of the shard, which node 3 leads
		knows bool               // the door knows who leads
		cut   [][2]transport.NodeID
		loop  bool // node 3 does not lead, and takes node 2 for the leader, which takes node 3
		want  error
		sent  int64 // requests, at most
	}{
		"the door has a replica":               {hosts: []transport.NodeID{1, 2, 3}, cut: [][2]transport.NodeID{{1, 3}}, sent: 4},
		"the door has none":                    {hosts: []transport.NodeID{2, 3, 4}, cut: [][2]transport.NodeID{{1, 3}}, sent: 4},
		"it knows the leader":                  {hosts: []transport.NodeID{1, 2, 3}, knows: true, cut: [][2]transport.NodeID{{1, 3}}, sent: 2},
		"it hears only the one between":        {hosts: []transport.NodeID{2, 3, 4}, cut: [][2]transport.NodeID{{1, 3}, {1, 4}}, sent: 4},
		"only one way is broken":               {hosts: []transport.NodeID{1, 2, 3}, knows: true, cut: [][2]transport.NodeID{{3, 1}}, sent: 2},
		"none is":                              {hosts: []transport.NodeID{1, 2, 3}, knows: true, sent: 1},
		"two that take each other for leaders": {hosts: []transport.NodeID{2, 3}, knows: true, cut: [][2]transport.NodeID{{1, 3}}, loop: true, want: &replica.NotLeaderError{}, sent: 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts, cut, sent := map[shard.ID][]transport.NodeID{id: test.hosts}, make(map[[2]transport.NodeID]bool), new(atomic.Int64)
				for _, c := range test.cut {
					cut[c] = true
				}
				routers := make(map[transport.NodeID]*router)
				for n := transport.NodeID(1); n <= 4; n++ {
					var replicas hosted = namer{3}
					switch {
					case n == 3 && test.loop:
						replicas = namer{2}
					case n == 3:
						replicas = echo{}
					case n == 1:
						replicas = namer{} // it does not hear its leader
					}
					r, m := newRouter(n, replicas, nil, hosts), &mesh{self: n, routers: routers, cut: cut, sent: sent}
					r.network, r.connected = m, m.reach
					r.doubtful = func(to transport.NodeID) bool { return !m.reach(to) }
					r.observe(id, map[bool]transport.NodeID{false: 3, true: 2}[n == 3 && test.loop])
					routers[n] = r
				}
				door := routers[1]
				if !test.knows {
					door.forget(id, 3)
				}
				began := time.Now()
				answers := make(chan error, 1)
				door.propose(trace.ID{}, id, shard.Command{Payload: []byte("x")}, false, true, began.Add(time.Second), func(_ shard.Result, err error) { answers <- err })
				err := <-answers
				if want := (&replica.NotLeaderError{}); test.want == nil && err != nil || test.want != nil && !errors.As(err, &want) {
					t.Errorf("propose: %v, want %v", err, test.want)
				}
				if took := time.Since(began); took > 100*time.Millisecond && test.want == nil {
					t.Errorf("answered after %v", took)
				}
				if n := sent.Load(); n > test.sent {
					t.Errorf("%d requests went over the network, want %d at most", n, test.sent)
				}
			})
		})
	}
}

// A shard whose leader died with its majority has no other. Who hears that from what is left of it says so, and is certain that nothing was
// carried out: the request reached nobody who leads.
func TestRouter_says_at_once_that_a_majority_is_lost(t *testing.T) {
	id := shard.NewID(shard.Order, 0)
	for name, test := range map[string]struct {
		door    transport.NodeID
		follows time.Duration // how long the survivor takes the dead leader for one
		within  time.Duration
	}{
		"the door has no replica":          {door: 1, within: 100 * time.Millisecond},
		"the door has what is left of it":  {door: 3, within: 100 * time.Millisecond},
		"the survivor has not noticed yet": {door: 1, follows: time.Second, within: time.Second + 2*maxRoutePause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts, dead := map[shard.ID][]transport.NodeID{id: {2, 3, 5}}, []transport.NodeID{2, 5}
				began := time.Now()
				cut := make(map[[2]transport.NodeID]bool)
				for _, d := range dead {
					for n := transport.NodeID(1); n <= 5; n++ {
						cut[[2]transport.NodeID{n, d}] = true
					}
				}
				routers := make(map[transport.NodeID]*router)
				for n := transport.NodeID(1); n <= 5; n++ {
					r, m := newRouter(n, &orphan{namer{2}, began.Add(test.follows)}, nil, hosts), &mesh{self: n, routers: routers, cut: cut, sent: new(atomic.Int64)}
					r.network, r.connected = m, m.reach
					r.well, r.doubtful = m.reach, func(to transport.NodeID) bool { return !m.reach(to) }
					r.observe(id, 2)
					routers[n] = r
					if !slices.Contains(dead, n) {
						go func() { _ = r.run(t.Context()) }() // it ends with the test, and has no errors
					}
				}
				answers := make(chan error, 1)
				routers[test.door].propose(trace.ID{}, id, shard.Command{}, false, true, began.Add(10*time.Second), func(_ shard.Result, err error) { answers <- err })
				err := <-answers
				if notLeader := (&replica.NotLeaderError{}); !errors.Is(err, errUnavailable) && !errors.As(err, &notLeader) {
					t.Errorf("propose: %v, want that nobody leads", err)
				}
				if took := time.Since(began); took > test.within {
					t.Errorf("answered after %v, want within %v", took, test.within)
				}
			})
		})
	}
}
