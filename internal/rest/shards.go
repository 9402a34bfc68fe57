package rest

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"hanse/internal/reject"
	"hanse/internal/shard"
)

func (s *server) listShards(c *call) error {
	service, err := c.choice("service", services())
	if err != nil {
		return err
	}
	counts := s.backend.ShardCounts()
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("shards")
		e.open('[')
		for _, sh := range s.backend.Shards() {
			if service == "" || strings.HasPrefix(sh.ID, service+"/") {
				appendShard(e, &sh)
			}
		}
		e.close(']')
		e.key("counts")
		e.open('{')
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			e.int(name, int64(counts[name]))
		}
		e.close('}')
		e.close('}')
	})
}

func appendShard(e *encoder, sh *ShardInfo) {
	e.open('{')
	e.str("id", sh.ID)
	e.int("leader", int64(sh.Leader))
	e.int("preferred", int64(sh.Preferred))
	e.str("state", sh.State)
	e.int("term", int64(sh.Term))
	e.int("applied", int64(sh.Applied))
	e.int("commit", int64(sh.Commit))
	e.key("replicas")
	e.open('[')
	for _, r := range sh.Replicas {
		e.open('{')
		e.int("id", int64(r.ID))
		e.int("node", int64(r.Node))
		e.int("match", int64(r.Match))
		e.str("state", r.State)
		e.close('}')
	}
	e.close(']')
	if m := sh.Move; m != nil {
		e.key("move")
		e.open('{')
		e.int("from", int64(m.From))
		e.int("to", int64(m.To))
		e.str("reason", m.Reason)
		e.str("doing", m.Doing)
		e.float("share", m.Share)
		e.float("left_seconds", m.Left.Seconds())
		e.time("started_at", m.Started)
		e.close('}')
	}
	e.close('}')
}

// shardID reads which shard the path is about.
func (s *server) shardID(c *call) (string, error) {
	name := c.r.PathValue("service") + "/" + c.r.PathValue("index")
	id, err := shard.ParseID(name)
	if err != nil || id.Index() >= s.backend.ShardCounts()[id.Service().String()] {
		return "", refuse(reject.ShardNotFound, "", fmt.Sprintf("there is no shard %.80q", name))
	}
	return id.String(), nil
}

func (s *server) moveReplica(c *call) error {
	id, err := s.shardID(c)
	if err != nil {
		return err
	}
	data, err := c.read()
	if err != nil {
		return err
	}
	m, err := decodeMove(data)
	if err != nil {
		return err
	}
	if err := s.backend.MoveReplica(c.ctx, id, m.From, m.To); err != nil {
		return err
	}
	return c.json(http.StatusAccepted, func(e *encoder) {
		e.open('{')
		e.str("shard", id)
		e.int("from", int64(m.From))
		e.int("to", int64(m.To))
		e.close('}')
	})
}

var moveFields = []string{"from", "to"}

func decodeMove(data []byte) (MoveRequest, error) {
	b, r := newBody(data), MoveRequest{}
	b.object(moveFields, func(i int) {
		n := uint64(b.between(1, math.MaxInt64))
		if i == 0 {
			r.From = n
		} else {
			r.To = n
		}
	})
	b.missing(r.From != 0, reject.InvalidRequest, "from")
	b.missing(r.To != 0, reject.InvalidRequest, "to")
	return r, b.done()
}

// recoverShard says what an unsafe recovery would do; it does so only to one who sends back what that answer asks for.
func (s *server) recoverShard(c *call) error {
	id, err := s.shardID(c)
	if err != nil {
		return err
	}
	data, err := c.read()
	if err != nil {
		return err
	}
	confirm, err := decodeRecover(data)
	if err != nil {
		return err
	}
	r, err := s.backend.RecoverShard(c.ctx, id, confirm)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.str("shard", r.Shard)
		e.int("node", int64(r.Node))
		e.int("term", int64(r.Term))
		e.int("index", int64(r.Index))
		e.uints("survivors", r.Survivors)
		e.uints("missing", r.Missing)
		e.opt("confirm", r.Confirm)
		e.opt("warning", r.Warning)
		e.bool("done", r.Done)
		e.close('}')
	})
}

func decodeRecover(data []byte) (confirm string, err error) {
	if len(data) == 0 { // look first
		return "", nil
	}
	b := newBody(data)
	b.object([]string{"confirm"}, func(int) { confirm = b.text(maxEvidence) })
	return confirm, b.done()
}
