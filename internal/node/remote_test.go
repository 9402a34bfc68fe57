package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/trace"
	"hanse/internal/transport"
)

// wired brings messages to the other router, at once.
type wired struct {
	transport.Transport
	from, to *router
}

func (w *wired) Send(_ transport.NodeID, _ transport.Class, m transport.Message) bool {
	w.to.receive(w.from.self, []transport.Message{m})
	return true
}

// echo is a leader that answers everything.
type echo struct{}

func (echo) Propose(_ shard.ID, c shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	done(shard.Result{Payload: c.Payload}, nil)
}

func (echo) Read(_ shard.ID, _ replica.Consistency, _ uint64, payload []byte, _ time.Time, done func(shard.Result, error)) {
	done(shard.Result{Payload: payload}, nil)
}

func TestTrace_reaches_the_log_of_the_leaders_node(t *testing.T) {
	id := shard.NewID(shard.Order, 1)
	hosts := map[shard.ID][]transport.NodeID{id: {2}}
	var out bytes.Buffer
	door, leader := newRouter(1, nil, nil, hosts), newRouter(2, echo{}, nil, hosts)
	door.network, leader.network = &wired{from: door, to: leader}, &wired{from: leader, to: door}
	leader.remote = newRemoteLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), time.Hour)

	logged := func() string {
		defer out.Reset()
		return out.String()
	}
	tr := trace.NewID(7, 8)
	answers := make(chan error, 1)
	done := func(_ shard.Result, err error) { answers <- err }
	door.propose(tr, id, shard.Command{Kind: shard.KindLogic, Payload: []byte("x")}, false, false, time.Now().Add(time.Minute), done)
	if err := <-answers; err != nil {
		t.Fatal(err)
	}
	if line := logged(); !strings.Contains(line, "trace="+tr.String()) || !strings.Contains(line, "shard=order/1") || !strings.Contains(line, "from=1") {
		t.Errorf("command: log %q, want its trace, shard and node", line)
	}
	if _, err := door.read(trace.With(t.Context(), tr), id, replica.Linearizable, 0, []byte("x"), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if line := logged(); !strings.Contains(line, "trace="+tr.String()) {
		t.Errorf("read: log %q, want its trace", line)
	}
	door.propose(trace.ID{}, id, shard.Command{Kind: shard.KindLogic}, false, false, time.Now().Add(time.Minute), done)
	if err := <-answers; err != nil {
		t.Fatal(err)
	}
	if line := logged(); line != "" {
		t.Errorf("without a trace: log %q, want nothing", line)
	}
}
