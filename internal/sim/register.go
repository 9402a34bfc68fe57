package sim

import (
	"hanse/api/keyspacepb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

// registers stands in for services that have no state machine of their own yet.
type registers struct {
	rows *shard.Table[*keyspacepb.Value]
}

func newRegister(s *shard.State) shard.Logic {
	return &registers{rows: shard.NewTable(s, 'r', shard.ProtoCodec[keyspacepb.Value](), 100)}
}

func (l *registers) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c keyspacepb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return shard.Result{Code: reject.MalformedCommand}
	}
	key := ""
	switch b := c.Body.(type) {
	case *keyspacepb.Command_Put:
		key = b.Put.Key
	case *keyspacepb.Command_Cas:
		key = b.Cas.Key
	case *keyspacepb.Command_Delete:
		key = b.Delete.Key
	}
	old, ok := l.rows.Find(key)
	exists := ok && old.UpdatedAt != 0
	v := &keyspacepb.Value{Version: old.GetVersion() + 1, UpdatedAt: tx.Now.Millis()}
	switch b := c.Body.(type) {
	case *keyspacepb.Command_Put:
		v.Value = b.Put.Value
	case *keyspacepb.Command_Cas:
		if exists != (b.Cas.ExpectedVersion != 0) || exists && b.Cas.ExpectedVersion != old.Version {
			return shard.Result{Code: reject.VersionMismatch}
		}
		v.Value = b.Cas.Value
	case *keyspacepb.Command_Delete:
		if !exists {
			return shard.Result{Code: reject.KeyNotFound}
		}
		v.UpdatedAt = 0
	}
	l.rows.Put(key, v)
	return shard.Result{Payload: encode(v)}
}

func (l *registers) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *registers) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (l *registers) Due(*shard.Tx, string)                         {}

func (l *registers) Query(payload []byte) shard.Result {
	var q keyspacepb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return shard.Result{Code: reject.MalformedCommand}
	}
	v, ok := l.rows.Find(q.GetFind().GetKey())
	if !ok || v.UpdatedAt == 0 {
		return shard.Result{Code: reject.KeyNotFound}
	}
	return shard.Result{Payload: encode(v)}
}

func (l *registers) View(string) (shard.Result, bool) { return shard.Result{}, false }
