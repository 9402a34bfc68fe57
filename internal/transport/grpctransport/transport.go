package grpctransport

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"hanse/internal/transport"
)

const (
	// windowBytes is how much a sender may have on its way: 8 MiB fill a link of 1 Gbit/s over 60 ms.
	windowBytes = 8 << 20
	// ioBufferBytes bounds one read or write of a socket.
	ioBufferBytes = 64 << 10
)

// Transport connects a node with its peers.
type Transport struct {
	cfg      Config
	receiver receiver

	// peers is the table that Send looks into; it is replaced, never changed.
	peers atomic.Pointer[map[transport.NodeID]*peer]
	// changed holds a token when SetPeers has left work for Run.
	changed chan struct{}

	mu sync.Mutex // serialises SetPeers
}

// peer is a node at an address. A moved node becomes a new peer.
type peer struct {
	address string
	senders [transport.Classes]*sender
}

var _ transport.Transport = (*Transport)(nil)

// New returns a transport that hands what arrives to h. It does nothing before Run but queue.
func New(cfg Config, h transport.Handler) (*Transport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t := &Transport{cfg: cfg, changed: make(chan struct{}, 1)}
	t.receiver = receiver{cfg: &t.cfg, handler: h, slots: map[slotKey]*slot{}}
	t.peers.Store(&map[transport.NodeID]*peer{})
	return t, nil
}

// Run accepts peers from l, which it closes, and keeps connections to all peers until ctx ends or l
// fails. It returns after the last call of the handler has returned. Call it once.
func (t *Transport) Run(ctx context.Context, l net.Listener) error {
	server := t.server()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(l); err != nil && ctx.Err() == nil {
			return fmt.Errorf("accept peers at %v: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		server.Stop() // and wait for the handlers
		return nil
	})
	g.Go(func() error { return t.connectPeers(ctx, g) })
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (t *Transport) server() *grpc.Server {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(maxWireBytes),
		grpc.InitialWindowSize(windowBytes), grpc.InitialConnWindowSize(windowBytes),
		grpc.ReadBufferSize(ioBufferBytes), grpc.WriteBufferSize(ioBufferBytes),
		grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(t.cfg.ConnectTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: t.cfg.PingInterval, Timeout: t.cfg.PingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: t.cfg.PingInterval / 2, PermitWithoutStream: true}),
	}
	if t.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(t.cfg.TLS)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(t.receiver.serviceDesc(), nil)
	return server
}

// connectPeers runs the senders of each peer from when it enters the table until it leaves it.
func (t *Transport) connectPeers(ctx context.Context, g *errgroup.Group) error {
	running := map[*peer]context.CancelFunc{}
	for {
		table := *t.peers.Load()
		for p, stop := range running {
			if !slices.Contains(slices.Collect(maps.Values(table)), p) {
				stop()
				delete(running, p)
			}
		}
		for _, p := range table {
			if running[p] != nil {
				continue
			}
			peerCtx, stop := context.WithCancel(ctx)
			running[p] = stop
			for _, s := range p.senders {
				g.Go(func() error {
					s.run(peerCtx)
					return nil
				})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
		}
	}
}

// Send implements [transport.Transport]. A message that [transport.Message.Check] refuses is dropped and counted.
func (t *Transport) Send(to transport.NodeID, class transport.Class, m transport.Message) bool {
	p := (*t.peers.Load())[to]
	if p == nil || class >= transport.Classes {
		return false
	}
	q := p.senders[class].queue
	if m.Check() != nil {
		q.drop()
		return false
	}
	return q.push(m)
}

// SetPeers implements [transport.Transport]. What waits for peers that are gone or moved is lost, and their counters
// start again from 0. The node's own number is ignored.
func (t *Transport) SetPeers(addresses map[transport.NodeID]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.peers.Load()
	table := make(map[transport.NodeID]*peer, len(addresses))
	for id, address := range addresses {
		if id == t.cfg.Node {
			continue
		}
		if p := old[id]; p != nil && p.address == address {
			table[id] = p
			continue
		}
		p := &peer{address: address}
		for class := range transport.Classes {
			p.senders[class] = newSender(&t.cfg, id, class, address)
		}
		table[id] = p
	}
	t.peers.Store(&table)
	select {
	case t.changed <- struct{}{}:
	default: // Run has not looked yet and will see this table
	}
}

// Connected reports whether the streams of all classes to a peer are open.
func (t *Transport) Connected(to transport.NodeID) bool {
	p := (*t.peers.Load())[to]
	if p == nil {
		return false
	}
	for _, s := range p.senders {
		if !s.connected.Load() {
			return false
		}
	}
	return true
}

// Peers tells how each peer fares, by ID. Connected means that the streams of all classes are open; Err
// names the class it speaks of.
func (t *Transport) Peers() []transport.Peer {
	table := *t.peers.Load()
	peers := make([]transport.Peer, 0, len(table))
	for _, id := range slices.Sorted(maps.Keys(table)) {
		peer := transport.Peer{ID: id, Connected: true}
		for _, s := range table[id].senders {
			queued, dropped := s.queue.figures()
			peer.Queued += uint64(queued)
			peer.Dropped += dropped
			peer.SentBytes += s.sentBytes.Load()
			s.mu.Lock()
			peer.Connected = peer.Connected && s.connected.Load()
			peer.Refused = peer.Refused || s.refused
			peer.Stranger = peer.Stranger || s.stranger
			peer.Process = cmp.Or(s.process, peer.Process)
			switch {
			case s.refused || s.stranger: // it is about the node, whatever the stream
				peer.Err = s.err
			case peer.Err == "" && s.err != "":
				peer.Err = s.class.String() + ": " + s.err
			}
			s.mu.Unlock()
		}
		peers = append(peers, peer)
	}
	return peers
}

// Received counts what came in since start.
type Received struct {
	Frames, Messages, Bytes uint64
	// Refused counts streams whose header did not fit, Malformed frames that closed their stream.
	Refused, Malformed uint64
}

// Received returns the counters of what came in.
func (t *Transport) Received() Received {
	r := &t.receiver
	return Received{
		Frames: r.frames.Load(), Messages: r.messages.Load(), Bytes: r.bytes.Load(),
		Refused: r.refused.Load(), Malformed: r.malformed.Load(),
	}
}
