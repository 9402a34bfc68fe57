package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"hanse/internal/payment"
	"hanse/internal/psp/pspclient"
	"hanse/internal/replica"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/shard/inventoryshard"
	"hanse/internal/shard/keyspaceshard"
	"hanse/internal/shard/metashard"
	"hanse/internal/shard/notificationshard"
	"hanse/internal/shard/ordershard"
	"hanse/internal/shard/paymentshard"
	"hanse/internal/store"
	"hanse/internal/store/pebblestore"
	"hanse/internal/transport"
	"hanse/internal/transport/grpctransport"
)

const (
	// drainTime is how long requests under way may take when the node stops.
	drainTime = 10 * time.Second
	// leaderWatch is how often the router is told who leads the shards hosted here.
	leaderWatch = 50 * time.Millisecond
	// providerPatience bounds one call to the provider; beyond it the outcome is unknown and asked for.
	providerPatience = 5 * time.Second
)

// Node is one Hanse node. Open it, Run it once.
type Node struct {
	cfg       Config
	log       *slog.Logger
	engine    *pebblestore.Store
	network   *grpctransport.Transport
	replicas  *replica.Node
	router    *router
	courier   *courier
	webhooks  *webhooks
	client    *Client
	http      *http.Server
	boot      uint64          // number of this start
	process   uint64          // drawn at this start
	drain     chan struct{}   // closed to end the event streams
	listeners [2]net.Listener // HTTP, peers
}

// Open prepares a node: it checks and opens the data directory and takes the ports. Nothing runs yet.
// After an error nothing is left open.
func Open(cfg Config, log *slog.Logger) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	n := &Node{cfg: cfg, log: log.With("node", cfg.ID), drain: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.release())
		}
	}()
	if err := n.listen(); err != nil {
		return nil, err
	}
	if err := n.openStore(); err != nil {
		return nil, err
	}
	if err := n.openReplicas(); err != nil {
		return nil, err
	}
	n.openDoors()
	return n, nil
}

func (n *Node) listen() error {
	for i, addr := range []string{n.cfg.HTTPAddr, n.cfg.PeerAddr} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("listen on %s: %w (is another node running there?)", addr, err)
		}
		n.listeners[i] = l
	}
	return nil
}

func (n *Node) openStore() error {
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	cfg := pebblestore.DefaultConfig()
	cfg.OnFault = func(err error) { // it may come while Pebble holds its locks: nothing can be closed any more
		n.log.Error("the store has failed, the node stops at once; look at the disk before the next start", "err", err)
		os.Exit(1)
	}
	cfg.Log = n.log
	engine, err := pebblestore.Open(filepath.Join(n.cfg.Dir, "store"), cfg)
	if err != nil {
		return err
	}
	n.engine = engine
	if err := identify(engine, n.cfg); err != nil {
		return err
	}
	n.boot, err = countBoot(engine)
	return err
}

func (n *Node) openReplicas() error {
	n.process = rand.Uint64() | 1
	network := grpctransport.DefaultConfig()
	network.Cluster, network.Node, network.Incarnation = n.cfg.ClusterID, transport.NodeID(n.cfg.ID), n.process
	network.Log = n.log
	var err error
	if n.network, err = grpctransport.New(network, n.receive); err != nil {
		return err
	}
	peers := make(map[transport.NodeID]string)
	for _, p := range n.cfg.Peers {
		if p.ID != n.cfg.ID {
			peers[transport.NodeID(p.ID)] = p.Peer
		}
	}
	n.network.SetPeers(peers)

	id := n.cfg.identity()
	hosts := make(map[shard.ID][]transport.NodeID)
	for _, s := range n.cfg.Layout.All() {
		for _, r := range placement(s, id) {
			hosts[s] = append(hosts[s], r.Node)
		}
	}
	n.router = newRouter(transport.NodeID(n.cfg.ID), nil, n.network, hosts)
	n.router.connected = n.connected
	n.courier = newCourier(n.router, n.provider(), n.log)

	cfg := replica.DefaultConfig()
	cfg.Node, cfg.Process = transport.NodeID(n.cfg.ID), n.process
	n.replicas, err = replica.Open(cfg, n.engine, n.network, openShard(n.cfg.Layout), n.courier, n.log)
	if err != nil {
		return err
	}
	n.router.replicas, n.courier.replicas = n.replicas, n.replicas
	return nil
}

func (n *Node) provider() payment.Provider {
	if n.cfg.PSP == "instant" {
		return pspclient.Instant{}
	}
	return pspclient.HTTP(n.cfg.PSP, providerPatience)
}

// openShard creates the state machine of each service.
func openShard(layout shard.Layout) shard.Opener {
	logics := map[shard.Service]func(*shard.State) shard.Logic{
		shard.Meta:         metashard.New(),
		shard.Order:        ordershard.New(layout),
		shard.Inventory:    inventoryshard.New(layout),
		shard.Payment:      paymentshard.New(),
		shard.Notification: notificationshard.New(),
		shard.Keyspace:     keyspaceshard.New(),
	}
	return func(id shard.ID, r store.Reader, prefix []byte) (shard.Machine, error) {
		build, ok := logics[id.Service()]
		if !ok {
			return nil, fmt.Errorf("shard %s: this program does not know the service", id)
		}
		return shard.Open(r, prefix, build)
	}
}

func (n *Node) openDoors() {
	n.client = &Client{router: n.router, layout: n.cfg.Layout, feed: newFeedSignal(), status: n.status}
	n.webhooks = newWebhooks(n.client, n.cfg.PublicWebhooks, n.log)
	n.courier.published = n.client.feed.raise
	n.courier.leads = func(id shard.ID, _ uint64, leader bool) {
		if id.Service() == shard.Notification {
			n.webhooks.lead(leader)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		n.network, newReplicaCollector(transport.NodeID(n.cfg.ID), n.replicas), n.engine, n.webhooks.metrics)
	cfg := rest.DefaultConfig()
	cfg.MaxInFlight = n.cfg.MaxInFlight
	cfg.Registerer, cfg.Gatherer = registry, registry
	cfg.Version, cfg.Drain = n.cfg.Version, n.drain
	n.http = cfg.Server(rest.New(cfg, n.client, n.log), n.log)
}

// receive sorts what comes from other nodes.
func (n *Node) receive(from transport.NodeID, class transport.Class, messages []transport.Message) {
	if class == transport.Call {
		n.router.receive(from, messages)
		return
	}
	n.replicas.Receive(from, messages)
}

// Run serves until ctx ends or a part fails, and releases everything. It returns the fault, nil after an orderly stop.
func (n *Node) Run(ctx context.Context) error {
	// The parts that answer requests outlive the doors, so that what is under way can finish.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error { return n.replicas.Run(inner) })
	g.Go(func() error { return n.network.Run(inner, n.listeners[1]) })
	g.Go(func() error { return n.router.run(inner) })
	g.Go(func() error { return n.courier.run(inner) })
	g.Go(func() error { return n.webhooks.run(inner) })
	g.Go(func() error { return n.watchLeaders(inner) })
	g.Go(func() error { return n.register(inner) })
	n.http.BaseContext = func(net.Listener) context.Context { return inner }
	g.Go(func() error {
		if err := n.http.Serve(n.listeners[0]); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	n.log.Info("node started", "http", n.cfg.HTTPAddr, "peers", n.cfg.PeerAddr, "dir", n.cfg.Dir)
	select {
	case <-ctx.Done():
	case <-inner.Done():
	}
	close(n.drain)
	shutdown, cancel := context.WithTimeout(context.Background(), drainTime)
	_ = n.http.Shutdown(shutdown) // what has not finished by then is cut off, and its clients retry
	cancel()
	if inner.Err() == nil {
		n.handOver(inner)
	}
	stop()
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil // we have stopped it
	}
	n.log.Info("node stopped", "err", err)
	return errors.Join(err, n.release())
}

// handOver gives the leaderships away, so that the cluster need not wait for an election.
func (n *Node) handOver(ctx context.Context) {
	self := transport.NodeID(n.cfg.ID)
	leads := func() (led []replica.Status) {
		for _, s := range n.replicas.Status() {
			if s.Leader == self && len(s.Replicas) > 1 {
				led = append(led, s)
			}
		}
		return led
	}
	for _, s := range leads() {
		for _, r := range n.router.hosts[s.Shard] {
			if r != self && n.connected(r) && n.replicas.TransferLeader(s.Shard, r) == nil {
				break
			}
		}
	}
	deadline := time.After(time.Second)
	for len(leads()) > 0 {
		select {
		case <-deadline:
			return
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// watchLeaders tells the router what the replicas here know about leaders, so that requests to a
// dead one are given up as soon as there is another.
func (n *Node) watchLeaders(ctx context.Context) error {
	t := time.NewTicker(leaderWatch)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			for _, s := range n.replicas.Status() {
				n.router.observe(s.Shard, s.Leader)
			}
		}
	}
}

func (n *Node) connected(id transport.NodeID) bool {
	for _, p := range n.network.Peers() {
		if p.ID == id {
			return p.Connected
		}
	}
	return false
}

func (n *Node) release() error {
	for _, l := range n.listeners {
		if l != nil {
			_ = l.Close() // closed already after an orderly stop
		}
	}
	if n.engine == nil {
		return nil
	}
	if err := n.engine.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// status describes the cluster as this node sees it.
func (n *Node) status() ([]rest.NodeInfo, []rest.ShardInfo) {
	peers := make(map[transport.NodeID]transport.Peer)
	for _, p := range n.network.Peers() {
		peers[p.ID] = p
	}
	var nodes []rest.NodeInfo
	for _, p := range n.cfg.Peers {
		info := rest.NodeInfo{ID: p.ID, REST: p.HTTP, Peers: p.Peer, Self: p.ID == n.cfg.ID, State: "active", Health: "healthy"}
		if peer := peers[transport.NodeID(p.ID)]; !info.Self && !peer.Connected {
			info.Health, info.Reason = "unhealthy", "not connected: "+peer.Err
		}
		nodes = append(nodes, info)
	}
	if len(nodes) == 0 {
		nodes = []rest.NodeInfo{{ID: n.cfg.ID, REST: n.cfg.HTTPAddr, Peers: n.cfg.PeerAddr, Self: true, State: "active", Health: "healthy"}}
	}
	var shards []rest.ShardInfo
	for _, s := range n.replicas.Status() {
		info := rest.ShardInfo{ID: s.Shard.String(), Leader: uint64(s.Leader), State: "ok", Term: s.Term, Applied: s.Applied, Commit: s.Commit}
		if info.Leader == 0 {
			info.State = "unavailable"
		}
		for _, r := range s.Replicas {
			info.Replicas = append(info.Replicas, rest.ReplicaInfo{Node: uint64(r.Node), Match: r.Match, State: r.State})
		}
		shards = append(shards, info)
	}
	return nodes, shards
}
