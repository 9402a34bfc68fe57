package metashard

import (
	"encoding/binary"
	"fmt"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// maxNodes bounds the members of a cluster.
	maxNodes = 1000
	// maxTextBytes bounds a node's addresses and version.
	maxTextBytes = 256
)

type logic struct {
	nodes *shard.Table[*metapb.Node]
}

// New returns the builder that [shard.Open] takes.
func New() func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{shard.NewTable(s, 'n', shard.ProtoCodec[metapb.Node](), maxNodes)}
	}
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c metapb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "meta command: %v", err)
	}
	r, ok := c.Body.(*metapb.Command_Register)
	if !ok || r.Register.GetNode().GetId() == 0 {
		return refuse(reject.MalformedCommand, "meta command without a body, or for no node")
	}
	return l.register(tx, r.Register.Node)
}

// register notes a start of a node. The same start may come again: its answer may have been lost.
func (l *logic) register(tx *shard.Tx, n *metapb.Node) shard.Result {
	if max(len(n.Http), len(n.Peers), len(n.Version)) > maxTextBytes {
		return refuse(reject.MalformedCommand, "node %d has an address or version of more than %d bytes", n.Id, maxTextBytes)
	}
	key := nodeKey(n.Id)
	old, known := l.nodes.Find(key)
	switch {
	case !known && l.count() >= maxNodes:
		return refuse(reject.TooManyNodes, "there are %d nodes", maxNodes)
	case n.Boot < old.GetBoot():
		return refuse(reject.StaleNode, "node %d says that it has been started %d times, but the cluster has seen %d: "+
			"its directory is an old copy", n.Id, n.Boot, old.Boot)
	case known && n.Boot == old.Boot && n.Process != old.Process:
		return refuse(reject.StaleNode, "start %d of node %d was that of another process: "+
			"its directory is a copy, or used twice", n.Boot, n.Id)
	}
	n = n.CloneVT()
	n.State, n.RegisteredAt, n.StartedAt = old.GetState(), tx.Now.Millis(), tx.Now.Millis()
	if known {
		n.RegisteredAt = old.RegisteredAt
		if n.Boot == old.Boot {
			n.StartedAt = old.StartedAt
		}
	}
	l.nodes.Put(key, n)
	return shard.Result{Payload: encode(n)}
}

func (l *logic) count() (n int) {
	l.nodes.Scan("", "", func(string, *metapb.Node) bool {
		n++
		return true
	})
	return n
}

// nodeKey sorts nodes by number.
func nodeKey(id uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], id)
	return string(b[:])
}

// Query answers a read-only question.
func (l *logic) Query(payload []byte) shard.Result {
	var q metapb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "meta query: %v", err)
	}
	if _, ok := q.Body.(*metapb.Query_ListNodes); !ok {
		return refuse(reject.MalformedCommand, "meta query without a body")
	}
	var list metapb.NodeList
	l.nodes.Scan("", "", func(_ string, n *metapb.Node) bool {
		list.Nodes = append(list.Nodes, n)
		return true
	})
	return shard.Result{Payload: encode(&list)}
}

// The service sends no messages, sets no timers and has nothing that settles later.
func (l *logic) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *logic) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (l *logic) Due(*shard.Tx, string)                         {}
func (l *logic) View(string) (shard.Result, bool)              { return shard.Result{}, false }

func refuse(code, format string, args ...any) shard.Result {
	return shard.Result{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("metashard: encode: " + err.Error()) // only a wrong size can fail
	}
	return data
}
