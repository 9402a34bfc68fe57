// Package metashard keeps what all nodes must agree on: who they are.
//
// Every node registers at each start, with a boot number that it counts up on its own disk. A number that is not above the
// known one belongs to an old copy of the node's directory, which has forgotten votes and acknowledgements: it
// is refused, and the node must not serve.
package metashard

import (
	"encoding/binary"
	"fmt"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

// maxNodes bounds the members of a cluster.
const maxNodes = 1000

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

func (l *logic) register(tx *shard.Tx, n *metapb.Node) shard.Result {
	key := nodeKey(n.Id)
	n = n.CloneVT()
	n.RegisteredAt, n.StartedAt = tx.Now.Millis(), tx.Now.Millis()
	if old, ok := l.nodes.Find(key); ok {
		switch {
		case n.Boot < old.Boot:
			return refuse(reject.StaleNode, "node %d says that it has been started %d times, but the cluster has seen %d: "+
				"its directory is an old copy", n.Id, n.Boot, old.Boot)
		case n.Boot == old.Boot: // the same start again
			n.StartedAt = old.StartedAt
		}
		n.RegisteredAt = old.RegisteredAt
	}
	l.nodes.Put(key, n)
	return shard.Result{Payload: encode(n)}
}

// nodeKey sorts nodes by number.
func nodeKey(id uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], id)
	return string(b[:])
}

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
