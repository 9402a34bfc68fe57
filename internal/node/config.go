package node

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"hanse/internal/replica"
	"hanse/internal/shard"
)

// Peer is a node of the cluster as the others reach it.
type Peer struct {
	ID uint64
	// HTTP and Peer are host:port addresses of its REST door and of its door for other nodes.
	HTTP, Peer string
}

// Config describes one node. Start from DefaultConfig.
type Config struct {
	// Dir is the data directory; it is created when absent.
	Dir string
	// ID is the node's number, from 1. It belongs to the data directory for ever. 0: what the directory says, or the cluster that is joined.
	ID uint64
	// ClusterID names the cluster, alike on all nodes; a node of another cluster is refused. Empty: what the directory says, or the
	// cluster that is joined. With Join it may be empty: whichever it is.
	ClusterID string
	// HTTPAddr and PeerAddr are the host:port addresses to listen on.
	HTTPAddr, PeerAddr string
	// Peers lists all nodes of the cluster, this one included. A cluster of one needs none.
	Peers []Peer
	// Bootstrap creates the cluster's first state in an empty directory. On a directory that has state
	// already it does nothing, so that it may stay in a unit file.
	Bootstrap bool
	// Join has REST addresses (host:port, names allowed) of nodes of the cluster that a node with an empty directory asks to admit it.
	// On a directory that has state already it does nothing, so that it may stay in a unit file. Not together with Bootstrap or Peers.
	Join []string
	// JoinToken proves that the cluster's operators want the node. It is a secret: neither logged nor shown.
	JoinToken string
	// JoinPatience is how long a node that wants to join goes on asking when nobody can answer: no node is up yet, or no majority.
	// Default 30 s.
	JoinPatience time.Duration
	// Replace is the node whose place the joining one takes, which is gone for good; 0 for none.
	Replace uint64
	// Name tells the node apart for people, unique in the cluster: up to 63 letters, digits, '-', '_' and '.'. Empty: a node that joins is
	// called by its REST address, a founder by its number.
	Name string
	// Zone is the failure domain, as Name in form; two replicas of a shard are not put into one while others are free. Empty for none.
	Zone string
	// Roles are the names of the services that it hosts; none: all.
	Roles []string
	// GossipAddr is the host:port, UDP and TCP, on which nodes tell each other who exists. Empty: it takes no part.
	GossipAddr string
	// AdvertiseHTTP, AdvertisePeer and AdvertiseGossip are the addresses at which others reach the node, where they differ from those
	// it listens on. Empty: those; see Advertised.
	AdvertiseHTTP, AdvertisePeer, AdvertiseGossip string
	// Layout is the number of shards of each service, alike on all nodes and fixed at bootstrap. With Join it is the cluster's, as
	// Replicas.
	Layout shard.Layout
	// Replicas is how many nodes keep a copy of each shard, at most; 3 unless there are fewer nodes.
	Replicas int
	// LayoutStated and ReplicasStated say that whoever starts the node has said so, and not the defaults.
	LayoutStated, ReplicasStated bool
	// PSP is the payment provider: the URL of its API, or Instant. A node that is not told takes that of the node which admitted it, and else
	// Instant, with a warning.
	PSP string
	// PublicWebhooks restricts webhooks to public addresses. Default false, for receivers are often on the same network; set it
	// when others than the operators may register receivers, who could otherwise reach what only this node can.
	PublicWebhooks bool
	// Version is the program's, for others to see.
	Version string
	// Now is the wall clock. Default time.Now; tests of faults give it one that is wrong.
	Now func() time.Time
	// VolatileDisk is for tests of faults: what the store has not synced dies with the process.
	VolatileDisk bool
	// MaxInFlight bounds the HTTP requests served at once; more are answered 429. Default 4096.
	MaxInFlight int
	// SnapshotRate bounds the MiB a second that the node sends to replicas that are new or far behind, 1 to 10240. Default 16.
	SnapshotRate int
	// SlowRequest is from when on a request is worth a warning in the log. Default 1 s.
	SlowRequest time.Duration
}

// Instant is a provider for tests: it accepts everything at once, and charges nobody.
const Instant = "instant"

// DefaultConfig returns a single node on the default ports. Its directory and its payment provider have yet to be said.
func DefaultConfig() Config {
	return Config{
		ID: 1, ClusterID: "hanse", HTTPAddr: "127.0.0.1:7400", PeerAddr: "127.0.0.1:7402", GossipAddr: "127.0.0.1:7403",
		Layout: shard.DefaultLayout(), Replicas: 3, Version: "dev", MaxInFlight: 4096, SlowRequest: time.Second, Now: time.Now,
		JoinPatience: 30 * time.Second, SnapshotRate: replica.DefaultConfig().SnapshotBytesPerSecond >> 20,
	}
}

// Advertised returns the addresses at which others reach the node: as stated, as its own entry in Peers says, or where it listens.
func (c Config) Advertised() (http, peer, gossip string) {
	http, peer, gossip = c.HTTPAddr, c.PeerAddr, c.GossipAddr
	for _, p := range c.Peers {
		if p.ID == c.ID {
			http, peer = p.HTTP, p.Peer
		}
	}
	return cmp.Or(c.AdvertiseHTTP, http), cmp.Or(c.AdvertisePeer, peer), cmp.Or(c.AdvertiseGossip, gossip)
}

// Validate reports all settings that cannot work.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no data directory"))
	}
	switch {
	case len(c.Join) > 0 && c.ID != 0:
		errs = append(errs, fmt.Errorf("node ID %d: the cluster gives a node that joins its number", c.ID))
	case c.Bootstrap && c.ID == 0:
		errs = append(errs, errors.New("node ID 0: IDs start at 1"))
	}
	if c.ClusterID == "" && c.Bootstrap {
		errs = append(errs, errors.New("no cluster ID"))
	}
	for _, a := range []struct{ name, addr string }{{"HTTP", c.HTTPAddr}, {"peer", c.PeerAddr}} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s address %q: want host:port", a.name, a.addr))
		}
	}
	errs = append(errs, c.checkJoin()...)
	errs = append(errs, c.checkSelf()...)
	if err := c.Layout.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Replicas < 1 || c.Replicas > 7 {
		errs = append(errs, fmt.Errorf("%d replicas: want 1 to 7", c.Replicas))
	}
	seen := make(map[uint64]bool)
	for _, p := range c.Peers {
		if p.ID == 0 || seen[p.ID] {
			errs = append(errs, fmt.Errorf("peer ID %d is zero or given twice", p.ID))
		}
		seen[p.ID] = true
	}
	if len(c.Peers) > 0 && c.ID != 0 && !seen[c.ID] {
		errs = append(errs, fmt.Errorf("node %d is not in its own list of peers", c.ID))
	}
	if err := checkProvider(c.PSP); err != nil {
		errs = append(errs, err)
	}
	if c.Now == nil {
		errs = append(errs, errors.New("no clock"))
	}
	if c.SnapshotRate < 1 || c.SnapshotRate > 10240 {
		errs = append(errs, fmt.Errorf("snapshots at %d MiB/s: want 1 to 10240", c.SnapshotRate))
	}
	if c.MaxInFlight < 1 {
		errs = append(errs, fmt.Errorf("at most %d requests at once: want at least 1", c.MaxInFlight))
	}
	if c.SlowRequest <= 0 {
		errs = append(errs, fmt.Errorf("requests are slow from %v on: want more than 0", c.SlowRequest))
	}
	return errors.Join(errs...)
}

// checkProvider looks at who moves the money.
func checkProvider(psp string) error {
	switch psp {
	case Instant, "":
		return nil
	}
	if u, err := url.Parse(psp); err != nil || u.Host == "" {
		return fmt.Errorf("payment provider %q: want %q or a URL", psp, Instant)
	}
	if len(psp) > maxProviderBytes { // it may hold a secret
		return fmt.Errorf("payment provider: a URL of %d bytes, want at most %d", len(psp), maxProviderBytes)
	}
	return nil
}

// maxProviderBytes bounds the URL of a payment provider, which the other nodes are told.
const maxProviderBytes = 255

// providerName is a payment provider as other nodes are told of it: without what nobody else is to know, and the same for the same.
func providerName(psp string) string {
	u, err := url.Parse(psp)
	if err != nil || u.Host == "" {
		return Instant
	}
	return strings.ToLower(u.Scheme+"://"+u.Host) + strings.TrimSuffix(u.EscapedPath(), "/")
}

// checkJoin looks at how the node comes into its cluster.
func (c Config) checkJoin() (errs []error) {
	if len(c.Join) == 0 {
		if c.Replace != 0 {
			errs = append(errs, fmt.Errorf("replace node %d: only a node that joins can take another's place", c.Replace))
		}
		return errs
	}
	if c.Bootstrap {
		errs = append(errs, errors.New("join and bootstrap: a node either founds a cluster or joins one"))
	}
	if len(c.Peers) > 0 {
		errs = append(errs, errors.New("join and a list of peers: a node that joins learns its peers from the cluster"))
	}
	if c.JoinToken == "" {
		errs = append(errs, errors.New("join without a token: a node of the cluster makes one with hanse node token"))
	}
	if c.JoinPatience <= 0 {
		errs = append(errs, fmt.Errorf("patience of %v for joining: want more than 0", c.JoinPatience))
	}
	for _, addr := range c.Join {
		if !hasHost(addr) {
			errs = append(errs, fmt.Errorf("join address %q: want host:port", addr))
		}
	}
	http, peer, gossip := c.Advertised()
	for _, addr := range []string{http, peer, gossip} {
		if host, _, err := net.SplitHostPort(addr); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
			errs = append(errs, fmt.Errorf("address %s is every address of this machine: say which the others reach", addr))
		}
	}
	return errs
}

// checkSelf looks at how the node describes itself.
func (c Config) checkSelf() (errs []error) {
	for _, a := range []struct{ name, addr string }{
		{"gossip", c.GossipAddr}, {"advertised HTTP", c.AdvertiseHTTP}, {"advertised peer", c.AdvertisePeer}, {"advertised gossip", c.AdvertiseGossip},
	} {
		if _, _, err := net.SplitHostPort(a.addr); a.addr != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s address %q: want host:port", a.name, a.addr))
		}
	}
	for _, l := range []struct{ name, label string }{{"name", c.Name}, {"zone", c.Zone}} {
		if l.label != "" && !label.MatchString(l.label) {
			errs = append(errs, fmt.Errorf("%s %q: want up to 63 letters, digits, '-', '_' and '.'", l.name, l.label))
		}
	}
	for i, role := range c.Roles {
		if !slices.ContainsFunc(shard.Services(), func(s shard.Service) bool { return s.String() == role }) {
			errs = append(errs, fmt.Errorf("role %q: there is no such service", role))
		} else if slices.Contains(c.Roles[:i], role) {
			errs = append(errs, fmt.Errorf("role %q is given twice", role))
		}
	}
	return errs
}

// label is what names of nodes and zones look like: they stand in tables, metrics and on command lines.
var label = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)

// hasHost reports whether addr is host:port with both.
func hasHost(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	return err == nil && host != "" && port != ""
}
