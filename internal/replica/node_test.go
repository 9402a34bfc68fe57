package replica_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hanse/internal/clock"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/store/memstore"
	"hanse/internal/store/pebblestore"
	"hanse/internal/transport"
	"hanse/internal/transport/memtransport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// counter is a shard that adds up what it is told.
type counter struct{ sum *shard.Table[uint64] }

var uintCodec = shard.Codec[uint64]{
	Append: func(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) },
	Decode: func(data []byte) (uint64, error) { v, _ := binary.Uvarint(data); return v, nil },
	Size:   func(uint64) int { return 10 },
}

func openCounter(_ shard.ID, r store.Reader, prefix []byte) (shard.Machine, error) {
	return shard.Open(r, prefix, func(s *shard.State) shard.Logic {
		return &counter{shard.NewTable(s, 'c', uintCodec, 1<<20)}
	})
}

func (c *counter) Apply(_ *shard.Tx, payload []byte) shard.Result {
	key := string(payload[:8])
	v, _ := c.sum.Find(key)
	c.sum.Put(key, v+1)
	return shard.Result{}
}

func (c *counter) Query(payload []byte) shard.Result {
	v, _ := c.sum.Find(string(payload))
	return shard.Result{Payload: binary.AppendUvarint(nil, v)}
}
func (c *counter) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (c *counter) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (c *counter) Due(*shard.Tx, string)                         {}
func (c *counter) Settled(string) bool                           { return false }
func (c *counter) View(string) shard.Result                      { return shard.Result{} }

type silent struct{}

func (silent) Leader(shard.ID, uint64, bool)         {}
func (silent) Applied(shard.ID, bool, shard.Applied) {}

// network runs nodes of one process with real goroutines.
type network struct {
	nodes []*replica.Node
	ids   []shard.ID
	stop  func()
}

func start(tb testing.TB, nodes, shards int, engine func(i int) store.Engine) *network {
	n := &network{}
	groups := make(map[shard.ID][]replica.Replica)
	for i := range shards {
		id := shard.NewID(shard.Keyspace, i)
		n.ids = append(n.ids, id)
		for k := range nodes {
			groups[id] = append(groups[id], replica.Replica{ID: uint64(k + 1), Node: transport.NodeID(k + 1)})
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	net := memtransport.NewNetwork(memtransport.Config{})
	peers := make(map[transport.NodeID]string)
	for i := range nodes {
		peers[transport.NodeID(i+1)] = fmt.Sprint("node", i+1)
	}
	var engines []store.Engine
	for i := range nodes {
		e := engine(i)
		engines = append(engines, e)
		id := transport.NodeID(i + 1)
		if err := replica.Bootstrap(e, groups, id); err != nil {
			tb.Fatal(err)
		}
		cfg := replica.DefaultConfig()
		cfg.Node, cfg.Process = id, uint64(i+1)
		var node *replica.Node
		t := net.Attach(id, peers[id], func(from transport.NodeID, _ transport.Class, m []transport.Message) { node.Receive(from, m) })
		t.SetPeers(peers)
		var err error
		if node, err = replica.Open(cfg, clock.New(time.Now), e, t, openCounter, silent{}, slog.New(slog.DiscardHandler)); err != nil {
			tb.Fatal(err)
		}
		n.nodes = append(n.nodes, node)
	}
	wg.Go(func() { _ = net.Run(ctx) })
	for _, node := range n.nodes {
		wg.Go(func() {
			if err := node.Run(ctx); err != nil {
				tb.Error(err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		for _, e := range engines {
			if err := e.Close(); err != nil {
				tb.Error(err)
			}
		}
	})
	tb.Cleanup(n.stop)
	return n
}

// leader waits for a leader of id.
func (n *network) leader(tb testing.TB, id shard.ID) *replica.Node {
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		for i, node := range n.nodes {
			for _, s := range node.Status() {
				if s.Shard == id && s.Leader == transport.NodeID(i+1) {
					return node
				}
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	tb.Fatal("no leader")
	return nil
}

func TestNode_answers_every_request_also_when_it_stops(t *testing.T) {
	n := start(t, 3, 2, func(int) store.Engine { return memstore.NewDisk().Open() })
	node := n.leader(t, n.ids[0])
	var answered, applied atomic.Int64
	const clients, each = 8, 200
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range each {
				done := make(chan error, 1)
				node.Propose(n.ids[0], shard.Command{Kind: shard.KindLogic, Payload: []byte("the key!")}, replica.Manner{},
					time.Now().Add(10*time.Second), func(_ shard.Result, err error) { done <- err })
				err := <-done
				answered.Add(1)
				if err == nil {
					applied.Add(1)
				}
				if i == each/2 && applied.Load() > clients*each/2 {
					go n.stop()
				}
			}
		})
	}
	wg.Wait()
	n.stop()
	if answered.Load() != clients*each || applied.Load() == 0 {
		t.Errorf("%d answers of which %d applied, want %d", answered.Load(), applied.Load(), clients*each)
	}
	done := make(chan error, 1)
	node.Read(n.ids[0], replica.Stale, 0, []byte("the key!"), time.Now(), func(_ shard.Result, err error) { done <- err })
	if err := <-done; !errors.Is(err, replica.ErrStopped) {
		t.Errorf("read after the stop: %v, want ErrStopped", err)
	}
}

func TestNode_reads_its_writes(t *testing.T) {
	n := start(t, 3, 1, func(int) store.Engine { return memstore.NewDisk().Open() })
	node := n.leader(t, n.ids[0])
	for i := range 50 {
		done := make(chan error, 1)
		node.Propose(n.ids[0], shard.Command{Kind: shard.KindLogic, Payload: []byte("the key!")}, replica.Manner{},
			time.Now().Add(10*time.Second), func(_ shard.Result, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		read := make(chan shard.Result, 1)
		node.Read(n.ids[0], replica.Linearizable, 0, []byte("the key!"), time.Now().Add(10*time.Second),
			func(r shard.Result, err error) {
				if err != nil {
					t.Error(err)
				}
				read <- r
			})
		r := <-read
		if v, _ := binary.Uvarint(r.Payload); v != uint64(i+1) {
			t.Fatalf("read %d after %d commands", v, i+1)
		}
	}
}

// BenchmarkNode proposes 200-byte commands with the store on disk; in memory only the network is.
func BenchmarkNode(b *testing.B) {
	for _, size := range []struct{ nodes, shards, clients int }{{1, 1, 64}, {1, 4, 512}, {3, 1, 64}, {3, 6, 512}} {
		b.Run(fmt.Sprintf("nodes=%d/shards=%d/clients=%d", size.nodes, size.shards, size.clients), func(b *testing.B) {
			n := start(b, size.nodes, size.shards, func(int) store.Engine {
				e, err := pebblestore.Open(b.TempDir(), pebblestore.DefaultConfig())
				if err != nil {
					b.Fatal(err)
				}
				return e
			})
			leaders := make(map[shard.ID]*replica.Node)
			for _, id := range n.ids {
				leaders[id] = n.leader(b, id)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for c := range size.clients {
				wg.Go(func() {
					id := n.ids[c%len(n.ids)]
					payload := make([]byte, 200)
					binary.BigEndian.PutUint64(payload, uint64(c))
					done := make(chan error, 1)
					for left.Add(-1) >= 0 {
						leaders[id].Propose(id, shard.Command{Kind: shard.KindLogic, Payload: payload}, replica.Manner{},
							time.Now().Add(10*time.Second), func(_ shard.Result, err error) { done <- err })
						if err := <-done; err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
			b.StopTimer()
			n.stop()
		})
	}
}

func TestNode_on_an_old_copy_of_its_directory_stops(t *testing.T) {
	id := shard.NewID(shard.Keyspace, 0)
	e := memstore.NewDisk().Open()
	groups := map[shard.ID][]replica.Replica{id: {{ID: 1, Node: 1}, {ID: 2, Node: 2}, {ID: 3, Node: 3}}}
	if err := replica.Bootstrap(e, groups, 1); err != nil {
		t.Fatal(err)
	}
	cfg := replica.DefaultConfig()
	cfg.Node, cfg.Process = 1, 1
	tr := memtransport.NewNetwork(memtransport.Config{}).Attach(1, "node1", func(transport.NodeID, transport.Class, []transport.Message) {})
	node, err := replica.Open(cfg, clock.New(time.Now), e, tr, openCounter, silent{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	node.Receive(2, []transport.Message{{Kind: transport.KindRaft, Group: uint32(id), FromReplica: 2, ToReplica: 1, Raft: &pb.Message{
		Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(7)), Commit: new(uint64(50)),
	}}})
	if err := node.Run(t.Context()); !errors.As(err, new(*replica.OldCopyError)) {
		t.Errorf("Run = %v, want an OldCopyError", err)
	}
}
