package gossip

import (
	"context"
	"log/slog"
	"net"
	"time"
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
	// Cluster and Secret are the cluster's; a key is derived from both.
	Cluster string
	Secret  []byte
	// Self is how this node describes itself; Self.Gossip is where the others reach it.
	Self Member
	// Listen is the host:port to listen on, UDP and TCP.
	Listen string
	// Rejoin is the time between attempts to reach known nodes that are not members. Default 3 s.
	Rejoin time.Duration
	// Known returns gossip addresses (host:port; names are looked up, all their addresses are tried) of nodes that ought to be there.
	Known func() []string
	Log   *slog.Logger
}

// Gossip is one node's part. All methods may be used concurrently.
type Gossip struct{}

// Open takes the port; nothing is sent before Run.
func Open(cfg Config) (*Gossip, error) { panic("gossip: being written") }

// Run takes part until ctx ends, then says goodbye.
func (g *Gossip) Run(ctx context.Context) error { panic("gossip: being written") }

// Members returns who is thought to be alive, by node, self included. Of two with one number the later boot counts.
func (g *Gossip) Members() []Member { panic("gossip: being written") }

// Changed holds a token when Members may have changed since it was last taken.
func (g *Gossip) Changed() <-chan struct{} { panic("gossip: being written") }

// Addr is where it listens.
func (g *Gossip) Addr() net.Addr { panic("gossip: being written") }
