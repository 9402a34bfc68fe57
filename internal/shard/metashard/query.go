package metashard

import (
	"hanse/api/metapb"
	"hanse/internal/shard"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// Query answers a read-only question.
func (l *logic) Query(payload []byte) shard.Result {
	var q metapb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return malformed("meta query: %v", err)
	}
	switch q := q.Body.(type) {
	case *metapb.Query_ListNodes:
		return answer(&metapb.NodeList{Nodes: l.allNodes()})
	case *metapb.Query_Look:
		if l.cluster().GetVersion() <= q.Look.NewerThan {
			return answer(&metapb.View{})
		}
		return answer(l.view())
	case *metapb.Query_ListEvents:
		return l.listEvents(q.ListEvents)
	}
	return malformed("meta query without a body")
}

// view returns everything, as it stands in the tables: it is to be encoded, not kept or changed.
func (l *logic) view() *metapb.View {
	v := &metapb.View{Cluster: l.cluster(), Nodes: l.allNodes()}
	l.shards.Scan("", "", func(_ string, s *metapb.Shard) bool {
		v.Shards = append(v.Shards, s)
		return true
	})
	return v
}

func (l *logic) allNodes() (nodes []*metapb.Node) {
	l.nodes.Scan("", "", func(_ string, n *metapb.Node) bool {
		nodes = append(nodes, n)
		return true
	})
	return nodes
}

// listEvents returns a page of the journal. What it has forgotten is left out without a word: numbers tell.
func (l *logic) listEvents(q *metapb.ListEvents) shard.Result {
	limit := int(min(q.Limit, maxPage))
	if limit == 0 {
		limit = defaultPage
	}
	var page metapb.EventList
	if q.After > maxNumber { // so far, no journal gets
		return answer(&page)
	}
	l.journal.events.Scan("", nodeKey(q.After+1), func(_ string, e *metapb.Event) bool {
		page.Events = append(page.Events, e)
		return len(page.Events) < limit
	})
	return answer(&page)
}
