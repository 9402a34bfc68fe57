package cluster

import (
	"syscall"
	"testing"
)

func TestJoining(t *testing.T) {
	f := newFleet(t)
	a := f.member("a", "--name", "a")
	a.start(append([]string{"--bootstrap"}, few...)...)
	f.ready()
	b, c := f.member("b"), f.member("c")
	stays := func(t *testing.T, members int) {
		t.Helper()
		if v, err := f.overview(); err != nil || len(v.Nodes) != members {
			t.Errorf("after a node that could not join: %+v, %v, want %d nodes", v, err, members)
		}
	}

	f.run("no token was ever made", func(t *testing.T) {
		f.token = "hanse_guess"
		m := f.member("d")
		m.join()
		m.ended(1, "does not admit this node: join_closed: .*nobody can join")
	})
	f.run("wrong token", func(t *testing.T) {
		f.makeToken()
		old := f.token
		f.makeToken()
		for _, wrong := range []string{"hanse_guess", old} {
			m := f.member("d")
			m.env = append(m.env, "HANSE_JOIN_TOKEN="+wrong)
			m.start("--join", a.addr(0))
			m.ended(1, "does not admit this node: join_token_wrong: ")
		}
	})
	f.run("another cluster than the one that answers", func(t *testing.T) {
		m := f.member("d")
		m.join("--cluster", "wharf")
		m.ended(1, "other_cluster: this is cluster hanse, not wharf")
	})
	f.run("two join and get their share", func(t *testing.T) {
		b.join()
		c.join()
		f.ready()
		f.balanced()
	})
	f.run("duplicate name", func(t *testing.T) {
		m := f.member("d")
		m.join("--name", "b")
		m.ended(1, "does not admit this node: node_exists: node [23] is called b already")
		stays(t, 3)
	})
	f.run("address in use", func(t *testing.T) {
		m := f.member("d")
		m.port = a.port
		m.join()
		m.ended(1, "listen on .*address already in use.*is another node running there")
		stays(t, 3)
	})
	f.run("gossip address in use", func(t *testing.T) {
		m := f.member("d")
		m.join("--gossip", a.addr(3))
		m.ended(1, "listen on .*address already in use.*is another node running there")
		stays(t, 3)
	})
	f.run("the address of another member", func(t *testing.T) {
		m := f.member("d")
		m.port = b.port
		m.join("--host", "127.0.0.2", "--advertise", "127.0.0.1")
		m.ended(1, `node_exists: node [23] \(b\) is reached at `+b.addr(2)+", where the node that wants to join says it is")
		stays(t, 3)
	})
	f.run("a clock that is far off", func(t *testing.T) {
		m := f.member("d")
		m.env = []string{"HANSE_TEST_CLOCK=+1h"}
		m.join()
		m.ended(1, "clock_off: the clock of the node that wants to join is off by (1h0m0|59m59).*s from node [123]'s, and 500ms is the most")
		stays(t, 3)
	})
	f.run("no such node to be replaced", func(t *testing.T) {
		m := f.member("d")
		m.join("--replace", "77")
		m.ended(1, "node_not_found: there is no node 77 to be replaced")
	})
	f.run("a node that is up is not replaced", func(t *testing.T) {
		m := f.member("d")
		m.join("--replace", "2")
		m.ended(1, "node_state: node 2 is up: only a node that is gone is replaced")
		stays(t, 3)
	})
	f.run("joined once, it goes on, whatever --join says", func(t *testing.T) {
		b.stop()
		b.start("--join", a.addr(0), "--join-token", "hanse_worthless")
		f.ready()
		stays(t, 3)
	})
	f.run("no majority", func(t *testing.T) {
		slow(t)
		b.kill()
		c.kill()
		m := f.member("d")
		m.join("--join-patience", "4s")
		m.ended(1, "join: nobody could answer within 4s: shard meta/0 .*these are missing: 2, 3.*is the cluster up, with a majority of its nodes")
	})
}

// Machines are switched on in any order.
func TestJoinBeforeThereIsACluster(t *testing.T) {
	f := newFleet(t)
	f.token = "hanse_chosen"
	a, b, c := f.member("a", "--name", "a"), f.member("b"), f.member("c")
	a.env = []string{"HANSE_JOIN_TOKEN=" + f.token}
	c.env = a.env
	c.start("--join", a.addr(0))
	c.says("no answer to the request to join, asking on.*connection refused")
	c.signal(syscall.SIGTERM)
	c.ended(1, "hanse: interrupted")

	b.env = a.env
	b.start("--join", a.addr(0))
	b.says("no answer to the request to join, asking on.*connection refused")
	a.start(append([]string{"--bootstrap"}, few...)...)
	f.ready()
	c.start("--join", a.addr(0)) // the same application as before
	f.ready()
	f.balanced()
}
