package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"
)

// formatVersion is the version of everything below the store. A newer directory is refused.
const formatVersion = 1

// identityKey lies outside the replicas' keys.
var identityKey = []byte("n/ident")

// identity says whose data directory this is.
type identity struct {
	Format  int            `json:"format"`
	Cluster string         `json:"cluster"`
	Node    uint64         `json:"node"`
	Layout  map[string]int `json:"layout"`
	// Nodes are the members at bootstrap; they decide where the shards' replicas are.
	Nodes    []uint64 `json:"nodes"`
	Replicas int      `json:"replicas"`
}

func (c Config) identity() identity {
	id := identity{Format: formatVersion, Cluster: c.ClusterID, Node: c.ID, Layout: make(map[string]int), Replicas: c.Replicas}
	for s, n := range c.Layout {
		id.Layout[s.String()] = n
	}
	for _, p := range c.Peers {
		id.Nodes = append(id.Nodes, p.ID)
	}
	if len(id.Nodes) == 0 {
		id.Nodes = []uint64{c.ID}
	}
	slices.Sort(id.Nodes)
	return id
}

// identify checks that the directory belongs to this node, or with bootstrap makes an empty one its own.
func identify(e store.Engine, c Config) error {
	want := c.identity()
	data, err := e.Get(identityKey)
	if errors.Is(err, store.ErrNotFound) {
		if !c.Bootstrap {
			return fmt.Errorf("data directory %s is empty: start with --bootstrap to create node %d of cluster %q there, or point --data to the node's directory", c.Dir, c.ID, c.ClusterID)
		}
		return bootstrap(e, c, want)
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	var have identity
	if err := json.Unmarshal(data, &have); err != nil {
		return fmt.Errorf("data directory %s has an unreadable identity: %w", c.Dir, err)
	}
	switch {
	case have.Format > formatVersion:
		return fmt.Errorf("data directory %s has format %d, this program reads up to %d: use a newer hanse", c.Dir, have.Format, formatVersion)
	case have.Cluster != want.Cluster:
		return fmt.Errorf("data directory %s belongs to cluster %q, not %q", c.Dir, have.Cluster, want.Cluster)
	case have.Node != want.Node:
		return fmt.Errorf("data directory %s belongs to node %d, not %d: two nodes with one directory would break the cluster's promises", c.Dir, have.Node, want.Node)
	case !maps.Equal(have.Layout, want.Layout):
		return fmt.Errorf("data directory %s was bootstrapped with the shards %v, configured are %v: the layout never changes", c.Dir, have.Layout, want.Layout)
	case !slices.Equal(have.Nodes, want.Nodes) || have.Replicas != want.Replicas:
		return fmt.Errorf("data directory %s was bootstrapped for nodes %v with %d replicas, configured are %v with %d", c.Dir, have.Nodes, have.Replicas, want.Nodes, want.Replicas)
	}
	return nil
}

// bootstrap writes the first state of every replica that this node hosts. Each node does so for itself
// and all write the same, so no node has to be first.
func bootstrap(e store.Engine, c Config, id identity) error {
	groups := make(map[shard.ID][]replica.Replica)
	for _, s := range c.Layout.All() {
		groups[s] = placement(s, id)
	}
	if err := replica.Bootstrap(e, groups, transport.NodeID(c.ID)); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	// The identity is written last: a directory without one is bootstrapped again from the start.
	b := e.NewBatch()
	defer b.Close()
	b.Set(identityKey, data)
	if err := e.Apply(b, true); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// placement puts a shard's replicas on consecutive nodes, one node further on for each shard.
func placement(s shard.ID, id identity) []replica.Replica {
	n := min(id.Replicas, len(id.Nodes))
	first := 0
	if n < len(id.Nodes) { // with a replica on every node, package replica's choice of leaders spreads the load
		first = s.Index()
	}
	replicas := make([]replica.Replica, n)
	for i := range replicas {
		replicas[i] = replica.Replica{ID: uint64(i + 1), Node: transport.NodeID(id.Nodes[(first+i)%len(id.Nodes)])}
	}
	return replicas
}
