package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

// Member is a node as it describes itself.
type Member struct {
	Node    uint64 `json:"n"`
	Boot    uint64 `json:"b"`
	HTTP    string `json:"h"`
	Peers   string `json:"p"`
	Gossip  string `json:"g"`
	Name    string `json:"m,omitempty"`
	Zone    string `json:"z,omitempty"`
	Version string `json:"v,omitempty"`
}

// Config of a node's gossip.
type Config struct {
	// Cluster and Secret are the cluster's; a key is derived from both. The cluster's ID has at most 255 bytes.
	Cluster string
	Secret  []byte
	// Self is how this node describes itself, in at most 512 bytes of JSON. Self.Gossip is where the others reach it (host:port; a name is
	// looked up); empty, it is the address it listens on. Self.Boot grows with each start.
	Self Member
	// Listen is the host:port to listen on, UDP and TCP. Without a host it is every address of the machine; port 0 is a free one.
	Listen string
	// Rejoin is the time between attempts to reach known nodes that are not members. Default 3 s.
	Rejoin time.Duration
	// Linger is how long two members of one number may be there before that is a conflict: the others hold what a node was before
	// it crashed and came back for alive for 2.5 to 15 s. Default 30 s.
	Linger time.Duration
	// Known returns gossip addresses (host:port; names are looked up, all their addresses are tried) of nodes that ought to be there.
	// Nil: none.
	Known func() []string
	// Log of nil: nothing is logged.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Rejoin = cmp.Or(c.Rejoin, 3*time.Second)
	c.Linger = cmp.Or(c.Linger, 30*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Known == nil {
		c.Known = func() []string { return nil }
	}
	return c
}

// Validate reports all problems.
func (c Config) Validate() error {
	var problems []error
	if c.Cluster == "" || len(c.Cluster) > memberlist.LabelMaxSize {
		problems = append(problems, fmt.Errorf("the cluster's ID has %d bytes, want 1 to %d", len(c.Cluster), memberlist.LabelMaxSize))
	}
	if len(c.Secret) == 0 {
		problems = append(problems, errors.New("the secret is empty"))
	}
	if c.Self.Node == 0 {
		problems = append(problems, errors.New("this node has no number"))
	}
	if c.Rejoin < 0 || c.Linger < 0 {
		problems = append(problems, fmt.Errorf("Rejoin is %s and Linger %s: neither can be negative", c.Rejoin, c.Linger))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		problems = append(problems, fmt.Errorf("listen on %q: %w", c.Listen, err))
	}
	return errors.Join(problems...)
}

// Gossip is one node's part. All methods may be used concurrently.
type Gossip struct {
	cfg      Config // Self with its address
	addr     *net.TCPAddr
	settings *memberlist.Config
	close    func() error
	members  *members
}

// Open takes the port; nothing is sent before Run. Who does not come to call Run calls Close.
func Open(cfg Config) (*Gossip, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	cfg = cfg.withDefaults()
	logger := libraryLogger(cfg.Log)
	transport, addr, err := listen(cfg.Listen, logger)
	if err != nil {
		return nil, fmt.Errorf("gossip: listen on %s: %w", cfg.Listen, err)
	}
	g := &Gossip{addr: addr, close: sync.OnceValue(func() error { return shut(transport) })}
	if g.settings, err = settings(&cfg, addr); err != nil {
		_ = g.Close()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.cfg = cfg
	g.members = newMembers(cfg)
	g.settings.Transport, g.settings.Logger = transport, logger
	g.settings.Events, g.settings.Conflict = g.members, g.members
	return g, nil
}

// Close gives the port back when Run was not called; after Run it does nothing.
func (g *Gossip) Close() error { return g.close() }

// Run takes part until ctx ends, then says goodbye. It is called once.
func (g *Gossip) Run(ctx context.Context) error {
	defer func() { _ = g.Close() }() // it ends; what did not close was closed
	at, ok := g.ownAddress(ctx)
	if !ok {
		return nil
	}
	g.settings.AdvertiseAddr, g.settings.AdvertisePort = at.Addr().String(), int(at.Port())
	list, err := memberlist.Create(g.settings)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	again := time.NewTicker(g.cfg.Rejoin)
	defer again.Stop()
	for ctx.Err() == nil {
		g.rejoin(ctx, list, at)
		g.members.lookForDoubles(time.Now())
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
	// Whoever is not told in time finds out by itself.
	if err := list.Leave(goodbye); err != nil {
		g.cfg.Log.Debug("gossip left without a goodbye", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// goodbye is how long a node that stops waits for its farewell to be passed on, which takes two rounds of 200 ms in a cluster of three.
const goodbye = time.Second

// Members returns who is thought to be alive, by node, self included. Of two with one number the later boot counts.
func (g *Gossip) Members() []Member { return g.members.all() }

// Conflict is two processes that take themselves for one node. That comes of a data directory that was copied, or of a second process
// that was given the number of the first.
type Conflict struct {
	Counts, Other Member
}

// Conflicts returns who has claimed the number of another for longer than Linger, or was started at the same time as it, by node.
func (g *Gossip) Conflicts() []Conflict { return g.members.conflicts() }

// Changed holds a token when Members may have changed since it was last taken.
func (g *Gossip) Changed() <-chan struct{} { return g.members.changed }

// Addr is where it listens.
func (g *Gossip) Addr() net.Addr { return g.addr }

// ownAddress is where the others reach this node. Its name may become known only after it has started, so it is looked up until it is
// found, or ctx ends.
func (g *Gossip) ownAddress(ctx context.Context) (at netip.AddrPort, ok bool) {
	for {
		found, err := lookUp(ctx, g.cfg.Self.Gossip)
		if err == nil && len(found) > 0 {
			return found[0], true
		}
		if ctx.Err() == nil {
			g.cfg.Log.Warn("the address that others are to be told is not found", "address", g.cfg.Self.Gossip, "err", err)
		}
		select {
		case <-ctx.Done():
			return netip.AddrPort{}, false
		case <-time.After(g.cfg.Rejoin):
		}
	}
}

// rejoin exchanges everything with each known address at which there is no member. Without it, nodes that lost one another for longer than
// the library remembers the dead (30 s) would not meet again.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist, self netip.AddrPort) {
	var mu sync.Mutex
	var missing []netip.AddrPort
	inParallel(g.cfg.Known(), func(address string) {
		found, err := lookUp(ctx, address)
		if err != nil && ctx.Err() == nil {
			g.cfg.Log.Debug("a known address is not found", "address", address, "err", err)
		}
		mu.Lock()
		defer mu.Unlock()
		missing = append(missing, found...)
	})
	slices.SortFunc(missing, netip.AddrPort.Compare)
	missing = slices.DeleteFunc(slices.Compact(missing), func(at netip.AddrPort) bool { return at == self || g.members.isAt(at) })
	inParallel(missing, func(at netip.AddrPort) {
		if ctx.Err() == nil {
			_, _ = list.Join([]string{at.String()}) // the library logs why not, and the next round tries again
		}
	})
}

// inParallel does something with each, several at a time: an address that swallows packets takes [patience].
func inParallel[T any](all []T, do func(T)) {
	var g errgroup.Group
	g.SetLimit(16)
	for _, one := range all {
		g.Go(func() error { do(one); return nil })
	}
	_ = g.Wait()
}

// lookUp returns all addresses of a host:port.
func lookUp(ctx context.Context, address string) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	found := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		found[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return found, nil
}
