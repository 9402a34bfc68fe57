package grpctransport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"hanse/internal/transport"
)

// Config describes a node's transport. Cluster, Node and Incarnation have no default.
type Config struct {
	// Cluster names the cluster, 1 to 128 printable ASCII characters; nodes of another are refused.
	Cluster string
	// Founding returns what tells the cluster from others of its name, empty as long as that is not known; nodes of another are refused.
	// Default: it is never known.
	Founding func() string
	// Node is this node's number, from 1.
	Node transport.NodeID
	// Incarnation tells this process from earlier ones of the node; any number that is drawn or taken at
	// start. It appears in logs and in the reason when two processes claim one number.
	Incarnation uint64
	// Boot is the number of this start of the node; peers tell an old copy of its directory by it.
	Boot uint64
	// Admit says why a node, at this start and in this process, may not talk to this one; nil when it may. Boot is 0 when the caller
	// did not tell. Default: all of the cluster may.
	Admit func(node transport.NodeID, boot, incarnation uint64) error

	// TLS is used by both sides when set: Certificates and RootCAs to dial, ClientCAs and ClientAuth to accept
	// (tls.RequireAndVerifyClientCert for mutual TLS). Without it traffic is plaintext, for loopback and private networks.
	TLS *tls.Config

	// QueueBytes bounds what waits for one peer, by class. Default [transport.QueueBytes].
	QueueBytes [transport.Classes]int

	// MinBackoff and MaxBackoff bound the pause after a failed attempt, which doubles from one to the other and is shortened
	// by up to a half at random, lest nodes retry in step. Default 50 ms to 2 s: a restarted peer is back within an
	// election timeout, and a dead one costs an attempt every second or two.
	MinBackoff, MaxBackoff time.Duration
	// ConnectTimeout bounds an attempt, from dialling to the peer's consent. Default 3 s: a lost SYN and its repetition.
	ConnectTimeout time.Duration
	// PingInterval and PingTimeout find connections that died in silence. Default 10 s (the least that gRPC
	// allows a client) and 5 s. Data that is not acknowledged for PingTimeout breaks a connection, so with
	// heartbeats on their way it takes 5 s, not 15.
	PingInterval, PingTimeout time.Duration

	// Dial connects to an address of the peer table. Default TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Log gets a line when a peer connects, breaks away or is refused. Default: discarded.
	Log *slog.Logger
}

// DefaultConfig returns a Config with every default filled in.
func DefaultConfig() Config {
	return Config{
		QueueBytes:     transport.QueueBytes,
		MinBackoff:     50 * time.Millisecond,
		MaxBackoff:     2 * time.Second,
		ConnectTimeout: 3 * time.Second,
		PingInterval:   10 * time.Second,
		PingTimeout:    5 * time.Second,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
		Admit:    func(transport.NodeID, uint64, uint64) error { return nil },
		Founding: func() string { return "" },
		Log:      slog.New(slog.DiscardHandler),
	}
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("grpctransport: "+format, args...))
		}
	}
	printable := true
	for _, r := range c.Cluster {
		printable = printable && r > ' ' && r <= '~'
	}
	check(len(c.Cluster) > 0 && len(c.Cluster) <= 128 && printable,
		"cluster %q: want 1 to 128 printable ASCII characters without spaces", c.Cluster)
	check(c.Node > 0, "node: want a number from 1")
	for class, limit := range c.QueueBytes {
		check(limit > 0, "queue of class %v: %d bytes, want more than 0", transport.Class(class), limit)
	}
	check(c.MinBackoff > 0 && c.MinBackoff <= c.MaxBackoff, "backoff %v to %v: want 0 < min <= max", c.MinBackoff, c.MaxBackoff)
	check(c.ConnectTimeout > 0, "connect timeout %v: want more than 0", c.ConnectTimeout)
	check(c.PingInterval >= 10*time.Second, "ping interval %v: want 10 s or more", c.PingInterval)
	check(c.PingTimeout > 0, "ping timeout %v: want more than 0", c.PingTimeout)
	check(c.Dial != nil, "dial function is missing")
	check(c.Admit != nil, "admit function is missing")
	check(c.Founding != nil, "founding function is missing")
	check(c.Log != nil, "log is missing")
	return errors.Join(errs...)
}
