package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"hanse/api/metapb"
	"hanse/internal/clock"
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
	clock     *clock.Clock
	log       *slog.Logger
	engine    *pebblestore.Store
	network   *grpctransport.Transport
	replicas  *replica.Node
	identity  identity
	directory *directory
	heart     *heart
	steward   *steward
	router    *router
	courier   *courier
	webhooks  *webhooks
	client    *Client
	http      *rest.Server
	boot      uint64 // number of this start
	process   uint64 // drawn at this start
	countBoot func(uint64) error
	drain     chan struct{} // closed to end the event streams
	peers     net.Listener
}

// Open prepares a node: it checks and opens the data directory and takes the ports, and asks to be admitted where it has to. Nothing
// runs yet. Ctx bounds the asking. After an error nothing is left open.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	n := &Node{cfg: cfg, clock: clock.New(cfg.Now), log: log, drain: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.release())
		}
	}()
	if err := n.takePorts(); err != nil {
		return nil, err
	}
	if err := n.openStore(ctx); err != nil {
		return nil, err
	}
	if err := n.openReplicas(); err != nil {
		return nil, err
	}
	n.openDoors()
	return n, nil
}

// takePorts listens for peers. HTTP and gossip open their own ports later; one that is taken is to be known now, before the node joins.
func (n *Node) takePorts() (err error) {
	if n.peers, err = listen(n.cfg.PeerAddr); err != nil {
		return err
	}
	door, err := listen(n.cfg.HTTPAddr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.Close()) }() // not before gossip's is looked at, which has to be another
	if n.cfg.GossipAddr == "" {
		return nil
	}
	l, err := listen(n.cfg.GossipAddr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	p, err := net.ListenPacket("udp", n.cfg.GossipAddr)
	if err != nil {
		return taken(n.cfg.GossipAddr, err)
	}
	return p.Close()
}

func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, taken(addr, err)
	}
	return l, nil
}

func taken(addr string, err error) error {
	return fmt.Errorf("listen on %s: %w (is another node running there?)", addr, err)
}

func (n *Node) openStore(ctx context.Context) error {
	if err := n.cfg.checkDir(); err != nil {
		return err
	}
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	cfg := pebblestore.DefaultConfig()
	cfg.OnFault = func(err error) { // it may come while Pebble holds its locks: nothing can be closed any more
		n.log.Error("the store has failed, the node stops at once; look at the disk before the next start", "err", err)
		os.Exit(1)
	}
	cfg.Log, cfg.Volatile = n.log, n.cfg.VolatileDisk
	engine, err := pebblestore.Open(filepath.Join(n.cfg.Dir, storeDir), cfg)
	if err != nil {
		return err
	}
	n.engine = engine
	n.identity, err = identify(engine, n.cfg, func() (identity, error) {
		j := &joiner{cfg: n.cfg, engine: engine, log: n.log, now: n.cfg.Now}
		return j.join(ctx)
	})
	if err != nil {
		return err
	}
	for _, setting := range n.cfg.unheeded(n.identity) {
		n.log.Warn("setting is not used: the cluster has been founded with another one, and it never changes", "setting", setting)
	}
	n.cfg.ID, n.cfg.ClusterID, n.cfg.Layout, n.cfg.Replicas = n.identity.Node, n.identity.Cluster, n.identity.layout(), n.identity.Replicas
	n.log = n.log.With("node", n.cfg.ID)
	n.countBoot = func(boot uint64) error { return countBoot(engine, boot) }
	n.boot, err = nextBoot(engine)
	return err
}

func (n *Node) openReplicas() error {
	n.process = rand.Uint64() | 1
	network := grpctransport.DefaultConfig()
	network.Cluster, network.Node, network.Incarnation = n.cfg.ClusterID, transport.NodeID(n.cfg.ID), n.process
	network.Log = n.log
	network.Boot = n.boot
	var err error
	if n.directory, err = openDirectory(n.cfg.ID, n.engine, n.cfg.firstView(n.identity), n.clock.Now, n.log); err != nil {
		return err
	}
	network.Admit = n.directory.admit
	network.Founding = func() string { return n.directory.now().founding }
	if n.network, err = grpctransport.New(network, n.receive); err != nil {
		return err
	}
	n.heart = newHeart(n.cfg.ID, n.network, n.clock.Now, n.log)
	n.heart.version, n.heart.saw = func() uint64 { return n.directory.now().version() }, n.directory.saw

	n.directory.lives = n.lives

	hosts := make(map[shard.ID][]transport.NodeID)
	for _, s := range n.cfg.Layout.All() {
		hosts[s] = nil
	}
	n.router = newRouter(transport.NodeID(n.cfg.ID), nil, n.network, hosts)
	n.router.connected = func(id transport.NodeID) bool { return n.heart.reached(id) && n.network.Connected(id) }
	n.router.doubtful = n.heart.doubtful
	n.router.well, n.router.moved = n.heart.well, n.directory.poke
	n.router.serves = n.directory.serves
	n.directory.onChange(func(k *known) {
		n.network.SetPeers(k.addresses)
		n.heart.setPeers(k.peers(n.cfg.ID))
		n.router.setHosts(k.hosts)
	})
	n.router.remote = newRemoteLog(n.log, n.cfg.SlowRequest)
	n.courier = newCourier(n.router, n.cfg.Layout, n.provider(), n.clock, n.log)
	n.courier.features = n.directory.features

	cfg := replica.DefaultConfig()
	cfg.Node, cfg.Process = transport.NodeID(n.cfg.ID), n.process
	cfg.SnapshotBytesPerSecond = n.cfg.SnapshotRate << 20
	n.replicas, err = replica.Open(cfg, n.clock, n.engine, n.network, openShard(n.cfg.Layout), n.courier, n.log)
	if err != nil {
		return err
	}
	n.router.replicas, n.courier.replicas = n.replicas, n.replicas
	n.courier.busy = n.replicas.Busy
	n.heart.stalled = n.replicas.WriteAge
	return nil
}

func (n *Node) provider() payment.Provider {
	switch psp := n.psp(); psp {
	case "":
		n.log.Warn("no payment provider was said (--psp URL): every payment is accepted, and nobody is charged")
	case Instant:
		n.log.Warn("the payment provider of this node accepts everything and charges nobody: for tests only", "psp", Instant)
	default:
		return pspclient.HTTP(psp, providerPatience)
	}
	return pspclient.Instant{}
}

// psp is the payment provider that was said to this node, or to the one that admitted it; empty for none.
func (n *Node) psp() string { return cmp.Or(n.cfg.PSP, n.identity.PSP) }

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
	n.steward = newSteward(n.cfg.ID, n.directory, n.heart, n.clock.Now, n.log)
	n.steward.replicas = n.replicas
	op := &operator{
		self: n.cfg.ID, directory: n.directory, heart: n.heart, steward: n.steward, router: n.router, replicas: n.replicas, clock: n.clock, log: n.log,
		psp: n.psp(),
	}
	n.client = &Client{router: n.router, layout: n.cfg.Layout, clock: n.clock, feed: newFeedSignal(), publicOnly: n.cfg.PublicWebhooks, operator: op}
	op.client, n.router.answer = n.client, op.answer
	n.steward.propose = func(ctx context.Context, c *metapb.Command) (shard.Result, error) {
		_, r, err := n.client.propose(ctx, shard.Meta, 0, rest.Request{}, c, 0)
		return r, err
	}
	n.directory.look = n.client.look
	n.webhooks = newWebhooks(n.client, n.cfg.PublicWebhooks, n.clock, n.log)
	n.courier.published = n.client.feed.raise
	n.courier.leads = func(id shard.ID, _ uint64, leader bool) {
		if id.Service() == shard.Notification {
			n.webhooks.lead(leader)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	own := prometheus.WrapRegistererWithPrefix("hanse_", registry)
	own.MustRegister(n.network, newReplicaCollector(transport.NodeID(n.cfg.ID), n.replicas), n.engine, n.webhooks.metrics, newClusterCollector(n.directory, n.heart, n.steward),
		newBacklogCollector(n.courier.outboxes, n.client.stuck))
	cfg := rest.DefaultConfig()
	cfg.MaxInFlight, cfg.SlowRequest = n.cfg.MaxInFlight, n.cfg.SlowRequest
	cfg.Registerer, cfg.Gatherer = own, registry
	cfg.Version, cfg.Drain = n.cfg.Version, n.drain
	n.http = cfg.Server(rest.New(cfg, n.client, n.log), n.log)
}

// receive sorts what comes from other nodes.
func (n *Node) receive(from transport.NodeID, class transport.Class, messages []transport.Message) {
	if class == transport.Call {
		for i := range messages {
			if m := &messages[i]; m.Kind == transport.KindHeartbeat || m.Kind == transport.KindHeartbeatAnswer {
				n.heart.receive(from, m)
			}
		}
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
	g.Go(func() error { return n.network.Run(inner, n.peers) })
	g.Go(func() error { return n.router.run(inner) })
	g.Go(func() error { return n.heart.run(inner) })
	err := n.admission(ctx) // before this node takes part in anything
	var door net.Listener
	if err == nil {
		door, err = listen(n.cfg.HTTPAddr) // not sooner: callers would wait at a port that nobody serves instead of asking another node
	}
	if err != nil {
		stop()
		_ = g.Wait() // they end because of that
		return errors.Join(err, n.release())
	}
	g.Go(func() error { return n.replicas.Run(inner) })
	g.Go(func() error { return n.courier.run(inner) })
	g.Go(func() error { return n.directory.run(inner) })
	g.Go(func() error { return n.steward.run(inner) })
	g.Go(func() error { return n.watch(inner) })
	g.Go(func() error { return n.talk(inner) })
	g.Go(func() error { return n.webhooks.run(inner) })
	g.Go(func() error { return n.watchLeaders(inner) })
	g.Go(func() error { return n.register(inner) })
	n.http.BaseContext = func(net.Listener) context.Context { return inner }
	g.Go(func() error {
		if err := n.http.Serve(door); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	n.log.Info("node started", "http", n.cfg.HTTPAddr, "peers", n.cfg.PeerAddr, "dir", n.cfg.Dir, "boot", n.boot)
	select {
	case <-ctx.Done():
	case <-inner.Done():
	}
	close(n.drain)
	n.heart.stop()
	shutdown, cancel := context.WithTimeout(context.Background(), drainTime)
	_ = n.http.Shutdown(shutdown) // what has not finished by then is cut off, and its clients retry
	cancel()
	if inner.Err() == nil {
		n.handOver(inner)
	}
	stop()
	err = g.Wait()
	if errors.Is(err, context.Canceled) || errors.Is(err, errDecommissioned) {
		err = nil // that is how it ends
	}
	n.log.Info("node stopped", "err", err)
	return errors.Join(err, n.release())
}

// handOver gives the leaderships away, so that the cluster need not wait for an election; but not to a node that is about to stop, too.
func (n *Node) handOver(ctx context.Context) {
	self := transport.NodeID(n.cfg.ID)
	handed := make(map[shard.ID]bool)
	for _, s := range n.replicas.Status() {
		if s.Leader != self {
			continue
		}
		for _, r := range n.router.able(s.Shard) {
			if r != self && n.router.connected(r) && n.router.well(r) && n.replicas.TransferLeader(s.Shard, r) == nil {
				handed[s.Shard] = true
				break
			}
		}
	}
	waits := func() bool {
		return slices.ContainsFunc(n.replicas.Status(), func(s replica.Status) bool { return s.Leader == self && handed[s.Shard] })
	}
	deadline := time.After(time.Second)
	for waits() {
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

// livesFor is how long after its last heartbeat a process is still taken to be there, if the streams to it stand. A process that
// ends takes them with it, so a quick restart is not mistaken for a second process; one that hangs for longer gives way.
const livesFor = 2 * time.Second

// lives returns the process of another node that is certainly there: this node's streams lead to it, and it has just been heard.
func (n *Node) lives(id transport.NodeID) uint64 {
	for _, p := range n.network.Peers() {
		if p.ID == id && p.Connected && n.heart.silent(id) < livesFor {
			return p.Process
		}
	}
	return 0
}

func (n *Node) release() error {
	if n.peers != nil {
		_ = n.peers.Close() // closed already after an orderly stop
	}
	if n.engine == nil {
		return nil
	}
	if err := n.engine.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
