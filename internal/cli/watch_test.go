package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hanse/client"
)

// operated serves a cluster of which only node 3 and shard order/0 are interesting. Look is called at each question.
func operated(t *testing.T, look func(n *client.Node, s *client.Shard)) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := client.Node{ID: 3, State: client.Active, Health: client.Healthy}
		sh := client.Shard{ID: "order/0", Leader: 1, Replicas: []client.Replica{{Node: 1}, {Node: 3}}}
		look(&n, &sh)
		var answer any
		switch r.URL.Path {
		case "/v1/nodes":
			answer = client.Overview{Nodes: []client.Node{n}}
		case "/v1/shards":
			answer = client.Shards{Shards: []client.Shard{sh}}
		default:
			answer = n
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func watched(ctx context.Context, addr string, args ...string) (code int, errOut string) {
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs, poll: time.Millisecond, now: time.Now}
	code = a.run(ctx, append([]string{"--addr", addr}, args...))
	return code, errs.String()
}

// Ctrl-C ends the looking on, not what is looked at, and the command says so.
func TestWhatIsWatchedGoesOnWithoutTheCommand(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"node", "decommission", "3", "--wait"}, "hanse node decommission 3 --wait looks again"},
		{[]string{"node", "drain", "3", "--wait"}, "hanse node drain 3 --wait looks again"},
		{[]string{"shard", "move", "order/0", "--from", "3", "--to", "4", "--wait"}, "order/0 goes on moving"},
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		var looks atomic.Int64
		addr := operated(t, func(n *client.Node, s *client.Shard) {
			n.State, s.Leader, s.Move = client.Decommissioning, 3, &client.Move{From: 3, To: 4}
			if looks.Add(1) == 9 {
				interrupt()
			}
		})
		code, errOut := watched(ctx, addr, test.args...)
		if code != exitRefused || !strings.Contains(errOut, test.want) || !strings.Contains(errOut, "hanse: interrupted") {
			t.Errorf("hanse %v: exit %d, %q, want that it was interrupted, and %q", test.args, code, errOut, test.want)
		}
	}
}

// What was asked for may reach the answering node a little later; what does not come at all was ended by somebody, or given up.
func TestWaitingEndsWhenThereIsNothingToWaitFor(t *testing.T) {
	var looks atomic.Int64
	addr := operated(t, func(n *client.Node, s *client.Shard) {
		if at := looks.Add(1); at > 6 && at < 20 { // it is seen to begin, and no more a little later
			n.State, s.Move = client.Decommissioning, &client.Move{From: 3, To: 4}
		}
	})
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"node", "decommission", "3", "--wait"}, "node 3 is active now: somebody has ended this"},
		{[]string{"node", "drain", "3", "--wait"}, "node 3 is active now: somebody has ended this"},
		{[]string{"shard", "move", "order/0", "--from", "3", "--to", "4", "--wait"}, "the move of order/0 was given up"},
	} {
		looks.Store(0)
		if code, errOut := watched(t.Context(), addr, test.args...); code != exitRefused || !strings.Contains(errOut, test.want) {
			t.Errorf("hanse %v: exit %d, %q, want %q", test.args, code, errOut, test.want)
		}
		if looks.Load() < 20 {
			t.Errorf("hanse %v gave up after %d looks", test.args, looks.Load())
		}
	}
}

func TestTheRestIsEstimated(t *testing.T) {
	moving := func(left ...float64) *client.Shards {
		s := &client.Shards{}
		for _, l := range left {
			s.Shards = append(s.Shards, client.Shard{Move: &client.Move{From: 3, LeftSeconds: l}})
		}
		return s
	}
	for _, test := range []struct {
		name           string
		shards         *client.Shards
		replicas, done int
		took, want     time.Duration
	}{
		{"by what is done", moving(), 6, 2, 20 * time.Second, time.Minute},
		{"by the moves under way", moving(30, 50), 4, 0, 0, 80 * time.Second},
		{"another's moves", &client.Shards{Shards: []client.Shard{{Move: &client.Move{From: 2, LeftSeconds: 30}}}}, 4, 0, 0, 0},
		{"nothing is known", moving(0), 4, 0, time.Minute, 0},
		{"nothing is left", moving(), 0, 6, time.Minute, 0},
		{"long", moving(), 10, 1, 25 * time.Second, 4 * time.Minute},
		{"short", moving(), 1, 1, 7 * time.Second, 5 * time.Second},
	} {
		if got := estimateLeft(test.shards, 3, test.replicas, test.done, test.took); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
