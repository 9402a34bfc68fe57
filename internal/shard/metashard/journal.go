package metashard

import (
	"fmt"
	"strings"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// maxEvents is how many events the journal keeps.
const maxEvents = 1000

// journal keeps the newest events, for people.
type journal struct {
	events *shard.Table[*metapb.Event] // by number
	last   uint64                      // number of the newest; 0: not looked up since the start, or none
}

func (j *journal) append(e *metapb.Event) {
	if j.last == 0 {
		j.events.Scan("", "", func(_ string, known *metapb.Event) bool {
			j.last = known.Seq
			return true
		})
	}
	j.last++
	e.Seq = j.last
	j.events.Insert(nodeKey(e.Seq), e)
	if e.Seq > maxEvents {
		j.events.Delete(nodeKey(e.Seq - maxEvents))
	}
}

// record writes an event down.
func (l *logic) record(tx *shard.Tx, e *metapb.Event) {
	e.At = tx.Now.Millis()
	if len(e.Detail) > maxTextBytes {
		e.Detail = strings.ToValidUTF8(e.Detail[:maxTextBytes], "")
	}
	l.journal.append(e)
}

func (l *logic) recordMove(tx *shard.Tx, kind string, s *metapb.Shard, why string) {
	m := s.Move
	detail := fmt.Sprintf("replica %d to node %d", m.To.Id, m.To.Node)
	if m.From != nil {
		detail += fmt.Sprintf(" for replica %d of node %d", m.From.Id, m.From.Node)
	}
	if why != "" {
		detail += ": " + why
	}
	l.record(tx, &metapb.Event{Type: kind, Node: m.To.Node, Shard: s.Id, Detail: detail})
}

// note writes down what others have seen.
func (l *logic) note(tx *shard.Tx, e *metapb.Event) shard.Result {
	if !eventType(e.GetType()) || !fit(e.Type, e.Detail) {
		return malformed("an event of type %.64q, or with a detail that is not UTF-8 of at most %d bytes", e.GetType(), maxTextBytes)
	}
	l.record(tx, e.CloneVT())
	return shard.Result{}
}

// eventType reports whether s is like node.unhealthy or move.given_up.
func eventType(s string) bool {
	about, what, ok := strings.Cut(s, ".")
	return ok && consistsOf(about, lower) && consistsOf(what, lower+"_")
}

const lower = "abcdefghijklmnopqrstuvwxyz"

func consistsOf(s, letters string) bool { return s != "" && strings.Trim(s, letters) == "" }
