package node

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hanse/api/metapb"
	"hanse/internal/hlc"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/shard/metashard"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

// soleShard is a node's only replica: it applies what is proposed, at once, unless it has no leader.
type soleShard struct {
	mu sync.Mutex
	shard.Machine
	index    uint64
	leader   bool
	proposed int
}

func (s *soleShard) Propose(id shard.ID, cmd shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proposed++
	if !s.leader {
		done(shard.Result{}, &replica.NotLeaderError{Shard: id})
		return
	}
	s.index++
	done(s.Apply(shard.Entry{Index: s.index, Time: hlc.FromMillis(time.Now().UnixMilli()), Commands: []shard.Command{cmd}}).Results[0], nil)
}

func (s *soleShard) Read(_ shard.ID, _ replica.Consistency, _ uint64, payload []byte, _ time.Time, done func(shard.Result, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done(s.Query(payload), nil)
}

// starter is a node with nothing but a client of the meta shard.
func starter(t *testing.T, meta *soleShard, boot, process uint64) *Node {
	cfg := member()
	id := shard.NewID(shard.Meta, 0)
	e := memstore.NewDisk().Open()
	n := &Node{cfg: cfg, log: slog.New(slog.DiscardHandler), boot: boot, process: process, identity: cfg.identity(), countBoot: func(uint64) error { return nil }}
	var err error
	if n.directory, err = openDirectory(cfg.ID, e, cfg.firstView(n.identity), time.Now, n.log); err != nil {
		t.Fatal(err)
	}
	r := newRouter(transport.NodeID(cfg.ID), meta, nil, map[shard.ID][]transport.NodeID{id: {transport.NodeID(cfg.ID)}})
	n.client = &Client{router: r, layout: cfg.Layout, operator: &operator{directory: n.directory}}
	n.client.operator.client, n.directory.look = n.client, n.client.look
	return n
}

func TestRegister_waits_for_a_leader_and_refuses_old_copies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine, err := shard.Open(memstore.NewDisk().Open(), []byte("s/"), metashard.New())
		if err != nil {
			t.Fatal(err)
		}
		meta := &soleShard{Machine: machine}
		done := make(chan error, 1)
		go func() { done <- starter(t, meta, 7, 70).register(t.Context()) }()
		time.Sleep(30 * time.Second)
		meta.mu.Lock()
		if meta.proposed < 10 {
			t.Errorf("%d attempts in 30 s without a leader", meta.proposed)
		}
		meta.leader = true
		meta.mu.Unlock()
		if err := <-done; err != nil {
			t.Fatalf("register: %v", err)
		}
		var list metapb.NodeList
		r := meta.Query(encode(&metapb.Query{Body: &metapb.Query_ListNodes{ListNodes: &metapb.ListNodes{}}}))
		if err := list.UnmarshalVT(r.Payload); err != nil || len(list.Nodes) != 3 {
			t.Fatalf("%d nodes, %v", len(list.Nodes), err)
		}
		if n := list.Nodes[1]; n.Id != 2 || n.Http != "b:1" || n.Peers != "b:2" || n.Boot != 7 || n.Process != 70 {
			t.Errorf("registered as %v, want node 2 as its peers know it", n)
		}
		if err := starter(t, meta, 7, 70).register(t.Context()); err != nil {
			t.Errorf("the same start again: %v", err)
		}
		for name, n := range map[string]*Node{"an old copy": starter(t, meta, 6, 71), "a second process": starter(t, meta, 7, 72)} {
			if err := n.register(t.Context()); err == nil || !strings.Contains(err.Error(), "refuses this node") {
				t.Errorf("%s: register = %v, want the refusal", name, err)
			}
		}
		if err := starter(t, meta, 8, 73).register(t.Context()); err != nil {
			t.Errorf("the next start: %v", err)
		}
		// Whoever starts what has ended does so with an old copy, too.
		copied := memstore.NewDisk().Open()
		set(t, copied, bootKey, []byte{6})
		for i := range uint64(5) {
			boot, err := nextBoot(copied)
			if err != nil {
				t.Fatal(err)
			}
			n := starter(t, meta, boot, 80+i)
			n.countBoot = func(boot uint64) error { return countBoot(copied, boot) }
			if err := n.register(t.Context()); err == nil || !strings.Contains(err.Error(), "old copy") {
				t.Errorf("start %d of an old copy: register = %v, want the refusal", i+1, err)
			}
		}
	})
}

func TestRegister_ends_with_its_context(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- starter(t, &soleShard{}, 1, 1).register(ctx) }()
		time.Sleep(time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("register: %v", err)
		}
		time.Sleep(callTimeout) // the attempt under way ends by itself
	})
}
