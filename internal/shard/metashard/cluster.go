package metashard

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	clusterKey  = "cluster"
	secretBytes = 32
	// maxShardsOfService is what a layout allows.
	maxShardsOfService = 4096
)

// cluster returns what is agreed of the cluster; nil, whose fields read as zero, before it is founded.
func (l *logic) cluster() *metapb.Cluster {
	c, _ := l.clusters.Find(clusterKey)
	return c
}

// changed raises the version, after every change of cluster, nodes or shards. What happens before the cluster is founded has none.
func (l *logic) changed() {
	if c := l.cluster(); c != nil {
		c.Version++
		l.clusters.Put(clusterKey, c)
	}
}

func (l *logic) found(tx *shard.Tx, f *metapb.Found) shard.Result {
	if problem := unsound(f); problem != "" {
		return malformed("found: %s", problem)
	}
	c := f.Cluster
	if old := l.cluster(); old != nil {
		switch {
		case old.Id != c.Id:
			return refuse(reject.OtherCluster, "this is cluster %s, founded already, not %s", old.Id, c.Id)
		case !slices.EqualFunc(old.Layout, c.Layout, (*metapb.ServiceShards).EqualVT):
			return refuse(reject.OtherCluster, "cluster %s was founded with another layout: %s", old.Id, describeLayout(old.Layout))
		case old.Replicas != c.Replicas:
			return refuse(reject.OtherCluster, "cluster %s was founded with %d replicas of each shard, not %d", old.Id, old.Replicas, c.Replicas)
		}
		return answer(l.view())
	}
	founders, next := make(map[uint64]bool), max(1, min(c.NextNode, maxNodes+1))
	for _, n := range f.Nodes {
		founders[n.Id] = true
	}
	for _, n := range l.allNodes() { // those that registered before
		founders[n.Id], next = true, max(next, n.Id+1)
	}
	for _, s := range f.Shards {
		for _, r := range s.Replicas {
			founders[r.Node], next = true, max(next, r.Node+1)
		}
	}
	if len(founders) > maxNodes {
		return refuse(reject.TooManyNodes, "the cluster would begin with %d nodes", len(founders))
	}
	for _, n := range f.Nodes {
		if _, known := l.nodes.Find(nodeKey(n.Id)); !known {
			l.nodes.Put(nodeKey(n.Id), &metapb.Node{Id: n.Id, Http: n.Http, Peers: n.Peers, Gossip: n.Gossip, StateSince: tx.Now.Millis()})
		}
		next = max(next, n.Id+1)
	}
	for _, s := range f.Shards {
		row := &metapb.Shard{Id: s.Id, Version: 1, NextReplica: 1}
		for _, r := range s.Replicas {
			row.Replicas = append(row.Replicas, &metapb.Replica{Id: r.Id, Node: r.Node})
			row.NextReplica = max(row.NextReplica, r.Id+1)
		}
		sortReplicas(row)
		l.putShard(row)
	}
	l.clusters.Put(clusterKey, &metapb.Cluster{
		Id: c.Id, Layout: c.Layout, Replicas: c.Replicas, Secret: c.Secret, TokenHash: c.TokenHash,
		NextNode: next, FirstJoined: next, FoundedAt: tx.Now.Millis(), Version: 1,
	})
	l.record(tx, &metapb.Event{Type: "cluster.founded", Detail: "cluster " + c.Id + ": " + describeLayout(c.Layout)})
	return answer(l.view())
}

// unsound says what keeps a first state from being one; empty for nothing.
func unsound(f *metapb.Found) string {
	c := f.GetCluster()
	switch {
	case c.GetId() == "" || !fit(c.Id):
		return fmt.Sprintf("the cluster's ID is not text of 1 to %d bytes", maxTextBytes)
	case c.Replicas < 1 || c.Replicas > maxNodes:
		return fmt.Sprintf("%d replicas of each shard", c.Replicas)
	case len(c.Secret) != secretBytes:
		return fmt.Sprintf("a secret of %d bytes, not %d", len(c.Secret), secretBytes)
	case !tokenHash(c.TokenHash):
		return fmt.Sprintf("a token hash of %d bytes", len(c.TokenHash))
	}
	due := f.Shards // what the layout has not claimed yet
	var last uint32
	for _, s := range c.Layout {
		switch {
		case s.GetService() <= last || !service(s.Service):
			return fmt.Sprintf("the layout has service %d after %d", s.GetService(), last)
		case s.Shards < 1 || s.Shards > maxShardsOfService:
			return fmt.Sprintf("the layout has %d shards of service %d", s.Shards, s.Service)
		case int(s.Shards) > len(due):
			return fmt.Sprintf("%d shards, less than in the layout", len(f.Shards))
		}
		last = s.Service
		for i, sh := range due[:s.Shards] {
			if want := uint32(shard.NewID(shard.Service(s.Service), i)); sh.GetId() != want {
				return fmt.Sprintf("shard %d stands where the layout has %d", sh.GetId(), want)
			}
		}
		due = due[s.Shards:]
	}
	if len(due) > 0 || len(f.Shards) == 0 || len(f.Shards) > maxShards {
		return fmt.Sprintf("%d shards, of which %d are not in the layout", len(f.Shards), len(due))
	}
	for i, n := range f.Nodes {
		switch {
		case n.GetId() == 0 || n.Id > maxNumber || i > 0 && n.Id <= f.Nodes[i-1].Id || len(f.Nodes) > maxNodes:
			return fmt.Sprintf("founder %d of %d has number %d", i, len(f.Nodes), n.GetId())
		case !soundNode(n):
			return fmt.Sprintf("founder %d: "+unsoundNode, n.Id, maxTextBytes)
		}
	}
	return misplaced(f.Shards)
}

// misplaced says what is wrong with first replicas; empty for nothing.
func misplaced(shards []*metapb.Shard) string {
	for _, s := range shards {
		ids, nodes := make(map[uint64]bool), make(map[uint64]bool)
		for _, r := range s.Replicas {
			if r.GetId() == 0 || r.Id > maxNumber || r.Node == 0 || r.Node > maxNumber || ids[r.Id] || nodes[r.Node] {
				return fmt.Sprintf("shard %s has replica %d on node %d", shard.ID(s.Id), r.GetId(), r.GetNode())
			}
			ids[r.Id], nodes[r.Node] = true, true
		}
		if len(ids) == 0 {
			return fmt.Sprintf("shard %s has no replica", shard.ID(s.Id))
		}
	}
	return ""
}

func service(number uint32) bool {
	return number <= 0xff && slices.Contains(shard.Services(), shard.Service(number))
}

func tokenHash(h []byte) bool { return len(h) == 0 || len(h) == sha256.Size }

func describeLayout(layout []*metapb.ServiceShards) string {
	var b []byte
	for i, s := range layout {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = fmt.Appendf(b, "%d of %s", s.Shards, shard.Service(s.Service))
	}
	return string(b)
}

func notFounded() shard.Result {
	return refuse(reject.NotFounded, "the cluster has not been founded")
}

func (l *logic) setToken(t *metapb.SetToken) shard.Result {
	c := l.cluster()
	switch {
	case !tokenHash(t.Hash):
		return malformed("a token hash of %d bytes", len(t.Hash))
	case c == nil:
		return notFounded()
	case !bytes.Equal(c.TokenHash, t.Hash):
		c.TokenHash = t.Hash
		l.changed()
	}
	return shard.Result{}
}

func (l *logic) setDownAfter(s *metapb.SetDownAfter) shard.Result {
	c := l.cluster()
	switch {
	case s.Ms < 0:
		return malformed("a node has to be dead for %d ms", s.Ms)
	case c == nil:
		return notFounded()
	case c.DownAfter != s.Ms:
		c.DownAfter = s.Ms
		l.changed()
	}
	return shard.Result{}
}

// raiseFeatures puts a feature level in force. It never goes down: data written at a level is not readable below it.
func (l *logic) raiseFeatures(tx *shard.Tx, r *metapb.RaiseFeatures) shard.Result {
	c := l.cluster()
	switch {
	case c == nil:
		return notFounded()
	case r.Features == c.Features:
		return shard.Result{}
	case r.Features < c.Features:
		return refuse(reject.FeatureLevel, "feature level %d is in force and never goes down, to %d", c.Features, r.Features)
	}
	if id, level := l.leastFeatures(); level < r.Features {
		return refuse(reject.FeatureLevel, "node %d knows features up to level %d, not %d", id, level, r.Features)
	}
	c.Features = r.Features
	l.changed()
	l.record(tx, &metapb.Event{Type: "features.raised", Detail: fmt.Sprintf("level %d", r.Features)})
	return shard.Result{}
}

// leastFeatures returns the member that knows least. One that has not registered yet is not known to know anything.
func (l *logic) leastFeatures() (node uint64, level uint32) {
	level = ^uint32(0)
	registered := make(map[uint64]bool)
	l.nodes.Scan("", "", func(_ string, n *metapb.Node) bool {
		registered[n.Id] = true
		if n.State != metapb.NodeState_NODE_DECOMMISSIONED && n.Features < level {
			node, level = n.Id, n.Features
		}
		return true
	})
	l.shards.Scan("", "", func(_ string, s *metapb.Shard) bool {
		for _, r := range s.Replicas {
			if !registered[r.Node] {
				node, level = r.Node, 0
				return false
			}
		}
		return true
	})
	return node, level
}
