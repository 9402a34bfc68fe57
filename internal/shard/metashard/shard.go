package metashard

import (
	"fmt"
	"unicode/utf8"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// maxNodes bounds the members of a cluster.
	maxNodes = 1000
	// maxRemoved is how many decommissioned nodes that had joined are remembered, beside the members.
	maxRemoved = 1000
	// maxShards bounds the shards of a cluster, all services together.
	maxShards = 16384
	// maxMoves bounds the moves of one command.
	maxMoves = 1000
	// maxTextBytes bounds names, addresses, reasons and details.
	maxTextBytes = 256
	// maxNumber bounds the numbers of nodes and replicas that come from outside: counting on from it never overflows.
	maxNumber = 1 << 62
)

type logic struct {
	clusters *shard.Table[*metapb.Cluster] // one row, once the cluster is founded
	nodes    *shard.Table[*metapb.Node]
	shards   *shard.Table[*metapb.Shard]
	journal  journal
}

// New returns the builder that [shard.Open] takes.
func New() func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{
			clusters: shard.NewTable(s, 'c', shard.ProtoCodec[metapb.Cluster](), 1),
			nodes:    shard.NewTable(s, 'n', shard.ProtoCodec[metapb.Node](), 2*maxNodes),
			shards:   shard.NewTable(s, 's', shard.ProtoCodec[metapb.Shard](), maxShards),
			journal:  journal{events: shard.NewTable(s, 'e', shard.ProtoCodec[metapb.Event](), maxEvents)},
		}
	}
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c metapb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return malformed("meta command: %v", err)
	}
	switch c := c.Body.(type) {
	case *metapb.Command_Register:
		return l.register(tx, c.Register.GetNode())
	case *metapb.Command_Found:
		return l.found(tx, c.Found)
	case *metapb.Command_Join:
		return l.join(tx, c.Join)
	case *metapb.Command_SetToken:
		return l.setToken(c.SetToken)
	case *metapb.Command_SetNodeState:
		return l.setNodeState(tx, c.SetNodeState)
	case *metapb.Command_PlanMoves:
		return l.planMoves(tx, c.PlanMoves)
	case *metapb.Command_ReadyMove:
		return l.readyMove(c.ReadyMove)
	case *metapb.Command_FinishMove:
		return l.finishMove(tx, c.FinishMove)
	case *metapb.Command_PreferLeaders:
		return l.preferLeaders(c.PreferLeaders)
	case *metapb.Command_RaiseFeatures:
		return l.raiseFeatures(tx, c.RaiseFeatures)
	case *metapb.Command_RecoverShard:
		return l.recoverShard(tx, c.RecoverShard)
	case *metapb.Command_Note:
		return l.note(tx, c.Note.GetEvent())
	case *metapb.Command_SetDownAfter:
		return l.setDownAfter(c.SetDownAfter)
	}
	return malformed("meta command without a body")
}

// The service sends no messages, sets no timers and has nothing that settles later.
func (l *logic) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *logic) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (l *logic) Due(*shard.Tx, string)                         {}
func (l *logic) Settled(string) bool                           { return false }
func (l *logic) View(string) shard.Result                      { return shard.Result{} }

// fit reports whether texts may be kept.
func fit(texts ...string) bool {
	for _, t := range texts {
		if len(t) > maxTextBytes || !utf8.ValidString(t) {
			return false
		}
	}
	return true
}

func answer(m interface{ MarshalVT() ([]byte, error) }) shard.Result {
	return shard.Result{Payload: encode(m)}
}

func refuse(code, format string, args ...any) shard.Result {
	return shard.Result{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) shard.Result {
	return refuse(reject.MalformedCommand, format, args...)
}

func encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("metashard: encode: " + err.Error()) // only a wrong size can fail
	}
	return data
}
