package cluster

import (
	"testing"
)

func TestJoining(t *testing.T) {
	f := newFleet(t)
	a := f.member("a", "--name", "a")
	a.start("--bootstrap")
	f.ready()

	f.run("no token was ever made", func(t *testing.T) {
		f.token = "hanse_guess"
		m := f.member("b")
		m.join()
		m.ended(1, "does not admit this node: join_closed: .*nobody can join")
	})
	f.run("wrong token", func(t *testing.T) {
		f.makeToken()
		old := f.token
		f.makeToken()
		for _, wrong := range []string{"hanse_guess", old} {
			m := f.member("b")
			m.env = append(m.env, "HANSE_JOIN_TOKEN="+wrong)
			m.start("--join", a.addr(0))
			m.ended(1, "does not admit this node: join_token_wrong: ")
		}
	})
	f.run("another cluster than the one that answers", func(t *testing.T) {
		m := f.member("b")
		m.join("--cluster", "wharf")
		m.ended(1, "other_cluster: this is cluster hanse, not wharf")
	})
	f.run("two join and get their share", func(t *testing.T) {
		for _, name := range []string{"b", "c"} {
			f.member(name).join()
		}
		f.ready()
		f.balanced()
	})
	f.run("duplicate name", func(t *testing.T) {
		m := f.member("b")
		m.join()
		m.ended(1, "does not admit this node: node_exists: node [23] is called b already")
	})
	f.run("address in use", func(t *testing.T) {
		m := f.member("d")
		m.port = a.port
		m.join()
		m.ended(1, "listen on .*address already in use.*is another node running there")
		if v, err := f.overview(); err != nil || len(v.Nodes) != 3 {
			t.Errorf("after a node that could not start: %v, %v, want 3 nodes", v, err)
		}
	})
}
