package node

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

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
	// ID is the node's number, from 1. It belongs to the data directory for ever.
	ID uint64
	// ClusterID names the cluster, alike on all nodes; a node of another cluster is refused.
	ClusterID string
	// HTTPAddr and PeerAddr are the host:port addresses to listen on.
	HTTPAddr, PeerAddr string
	// Peers lists all nodes of the cluster, this one included. A cluster of one needs none.
	Peers []Peer
	// Bootstrap creates the cluster's first state in an empty directory. On a directory that has state
	// already it does nothing, so that it may stay in a unit file.
	Bootstrap bool
	// Layout is the number of shards of each service, alike on all nodes and fixed at bootstrap.
	Layout shard.Layout
	// Replicas is how many nodes keep a copy of each shard, at most; 3 unless there are fewer nodes.
	Replicas int
	// PSP is the payment provider: the URL of its API, or "instant" for one that accepts everything at once.
	PSP string
	// PublicWebhooks restricts webhooks to public addresses. Default false, for receivers are often on the same network; set it
	// when others than the operators may register receivers, who could otherwise reach what only this node can.
	PublicWebhooks bool
	// Version is the program's, for others to see.
	Version string
	// Now is the wall clock. Default time.Now; tests of faults give it one that is wrong.
	Now func() time.Time
	// MaxInFlight bounds the HTTP requests served at once; more are answered 429. Default 4096.
	MaxInFlight int
}

// DefaultConfig returns a single node on the default ports.
func DefaultConfig() Config {
	return Config{
		ID: 1, ClusterID: "hanse", HTTPAddr: "127.0.0.1:7400", PeerAddr: "127.0.0.1:7402",
		Layout: shard.DefaultLayout(), Replicas: 3, PSP: "instant", Version: "dev", MaxInFlight: 4096, Now: time.Now,
	}
}

// Validate reports all settings that cannot work.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no data directory"))
	}
	if c.ID == 0 {
		errs = append(errs, errors.New("node ID 0: IDs start at 1"))
	}
	if c.ClusterID == "" {
		errs = append(errs, errors.New("no cluster ID"))
	}
	for _, a := range []struct{ name, addr string }{{"HTTP", c.HTTPAddr}, {"peer", c.PeerAddr}} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s address %q: want host:port", a.name, a.addr))
		}
	}
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
	if len(c.Peers) > 0 && !seen[c.ID] {
		errs = append(errs, fmt.Errorf("node %d is not in its own list of peers", c.ID))
	}
	if c.PSP != "instant" {
		if u, err := url.Parse(c.PSP); err != nil || u.Host == "" {
			errs = append(errs, fmt.Errorf("payment provider %q: want \"instant\" or a URL", c.PSP))
		}
	}
	if c.Now == nil {
		errs = append(errs, errors.New("no clock"))
	}
	if c.MaxInFlight < 1 {
		errs = append(errs, fmt.Errorf("at most %d requests at once: want at least 1", c.MaxInFlight))
	}
	return errors.Join(errs...)
}
