package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"hanse/api/metapb"
	"hanse/internal/cluster/gossip"
	"hanse/internal/rest"
	"hanse/internal/shard"
)

const (
	// admissionPatience is how long a starting node waits for a majority of the cluster to answer its heartbeats. After a stop of the
	// whole cluster there may be nobody, and it goes on.
	admissionPatience = time.Second
	// unfitFor is how long a starting node asks again when it is refused, or its clock seems to be off: a process that has just ended may
	// seem to be there still, and a first heartbeat may have been slow.
	unfitFor = 1500 * time.Millisecond
	// watchInterval is how often a running node looks whether it has to stop.
	watchInterval = 500 * time.Millisecond
	// offFor is how long a clock has to be off before its node stops.
	offFor = 3 * time.Second
)

// admission lets the others look at this node before it takes part in anything: one that has forgotten what it promised, that runs
// twice, or whose clock is far off, does no harm while it has not begun.
func (n *Node) admission(ctx context.Context) error {
	peers := n.directory.now().peers(n.cfg.ID)
	if len(peers) == 0 {
		return nil
	}
	began := time.Now()
	var unfitSince time.Time
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		err := n.unfit()
		answering := n.heart.answered(peers)
		switch {
		case err == nil && answering >= (len(peers)+1)/2: // with this node a majority
			return nil
		case err == nil && time.Since(began) >= admissionPatience:
			if err := n.astray(); err != nil {
				return err
			}
			n.log.Info("few nodes answer, going on without them", "answering", answering, "of", len(peers))
			return nil
		case err == nil:
			unfitSince = time.Time{}
		case unfitSince.IsZero():
			unfitSince = time.Now()
		case time.Since(unfitSince) >= unfitFor:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// unfit says why this node must not take part.
func (n *Node) unfit() error {
	for _, p := range n.network.Peers() {
		if p.Refused {
			return fmt.Errorf("the cluster refuses this node: %s", p.Err)
		}
	}
	if off, known := n.heart.offset(); known && off.Abs() >= n.heart.cfg.StopOffset {
		direction := "ahead of"
		if off < 0 {
			direction = "behind"
		}
		return fmt.Errorf("the clock of this node is %v %s the others', and %v is the most: set it, and start the node again",
			off.Abs().Round(time.Millisecond), direction, n.heart.cfg.StopOffset)
	}
	return nil
}

// astray says that this node is among strangers: somebody else answers at the address of each node that it knows. One stranger says
// nothing, for a node that is gone may have left its address to anybody.
func (n *Node) astray() error {
	peers := n.network.Peers()
	for _, p := range peers {
		if !p.Stranger {
			return nil
		}
	}
	if len(peers) == 0 {
		return nil
	}
	return fmt.Errorf("only strangers answer where the nodes of this cluster should be: %s", peers[0].Err)
}

// errDecommissioned says that the node's work is done.
var errDecommissioned = errors.New("node decommissioned")

// watch stops a node that must not go on: the cluster has removed it, its directory is an old one, or its clock is off for good.
func (n *Node) watch(ctx context.Context) error {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	var unfitSince time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if k := n.directory.now(); k.confirmed && k.nodes[n.cfg.ID].GetState() == metapb.NodeState_NODE_DECOMMISSIONED {
			n.log.Info("this node has been decommissioned and stops; its directory is of no use any more", "reason", k.nodes[n.cfg.ID].StateReason)
			return errDecommissioned
		}
		err := n.unfit()
		if err == nil && len(n.network.Peers()) > 1 { // a single one may have left its address to somebody
			err = n.astray()
		}
		switch {
		case err == nil:
			unfitSince = time.Time{}
		case unfitSince.IsZero():
			unfitSince = time.Now()
		case time.Since(unfitSince) >= offFor:
			return err
		}
	}
}

// look reads the meta shard; see directory.
func (c *Client) look(ctx context.Context, newerThan uint64) (*metapb.View, error) {
	q := &metapb.Query{Body: &metapb.Query_Look{Look: &metapb.Look{NewerThan: newerThan}}}
	a, err := ask[metapb.View](ctx, c, shard.NewID(shard.Meta, 0), q, rest.Consistency{})
	return a.Value, err
}

// found writes the cluster's first state, when there is none. All founders offer it, and all offer the same but for the secret, of which
// the first is taken.
func (n *Node) found(ctx context.Context) error {
	if n.identity.Joined {
		return nil
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("draw the cluster's secret: %w", err)
	}
	first := n.cfg.firstView(n.identity)
	c := &metapb.Cluster{Id: n.cfg.ClusterID, Replicas: uint32(n.cfg.Replicas), Secret: secret, TokenHash: hashToken(n.cfg.JoinToken)}
	for _, s := range shard.Services() {
		c.Layout = append(c.Layout, &metapb.ServiceShards{Service: uint32(s), Shards: uint32(n.cfg.Layout[s])})
	}
	for _, f := range n.identity.Nodes {
		c.NextNode = max(c.NextNode, f+1)
	}
	v := new(metapb.View)
	if err := n.client.tell(ctx, &metapb.Command{Body: &metapb.Command_Found{Found: &metapb.Found{Cluster: c, Shards: first.Shards, Nodes: first.Nodes}}}, v); err != nil {
		return err
	}
	n.directory.take(v)
	return nil
}

// talk takes part in gossip once the cluster's secret is known.
func (n *Node) talk(ctx context.Context) error {
	if n.cfg.GossipAddr == "" {
		return nil
	}
	ready := make(chan struct{}, 1)
	n.directory.onChange(func(k *known) {
		if len(k.view.GetCluster().GetSecret()) > 0 {
			select {
			case ready <- struct{}{}:
			default:
			}
		}
	})
	select {
	case <-ctx.Done():
		return nil
	case <-ready:
	}
	http, peer, address := n.cfg.Advertised()
	var cfg gossip.Config
	cfg.Cluster, cfg.Secret = n.cfg.ClusterID, n.directory.now().view.Cluster.Secret
	cfg.Self = gossip.Member{
		Node: n.cfg.ID, Boot: n.boot, HTTP: http, Peers: peer, Gossip: address, Name: n.cfg.Name, Zone: n.cfg.Zone, Version: n.cfg.Version,
	}
	cfg.Listen, cfg.Known, cfg.Log = n.cfg.GossipAddr, n.directory.gossipAddresses, n.log
	g, err := gossip.Open(cfg)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-g.Changed():
			n.directory.heard(g.Members())
		}
	}
}
