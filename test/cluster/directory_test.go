package cluster

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"hanse/client"
)

// put makes a directory a copy of another, as a restored backup is.
func put(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

func TestDirectories(t *testing.T) {
	slow(t)
	f := newFleet(t)
	nodes := f.found(3, few...)
	a, b, c := nodes[0], nodes[1], nodes[2]
	backup := f.tempDir() + "/c"

	f.run("a copy beside the original", func(t *testing.T) {
		clone := f.member("clone")
		put(t, c.dir, clone.dir)
		clone.start()
		clone.ended(1, "the cluster refuses this node: .*node 3 is running at "+c.addr(2))
		f.ready()
	})
	f.run("the original itself, twice", func(t *testing.T) {
		twice := f.member("twice")
		twice.dir = c.dir
		twice.start()
		twice.ended(1, "another process|lock")
		f.ready()
	})
	f.run("an old copy", func(t *testing.T) {
		put(t, c.dir, backup)
		for range 2 {
			c.kill()
			c.start()
			f.ready()
		}
		c.stop()
		latest := f.tempDir() + "/c"
		put(t, c.dir, latest)
		put(t, backup, c.dir)
		for range 4 { // a service manager does not give up
			c.start()
			c.ended(1, "the cluster refuses this node: .*node 3 says that it has been started 2 times, but the cluster has seen 3: its directory is an old copy")
		}
		put(t, latest, c.dir)
		c.start()
		f.ready()
	})
	f.run("an empty directory for a founder that was there", func(t *testing.T) {
		c.stop()
		put(t, c.dir, backup)
		if err := os.RemoveAll(c.dir); err != nil {
			t.Fatal(err)
		}
		c.start(c.founding...)
		c.ended(1, "the cluster refuses this node: .*node 3 says that it has been started 1 times, but the cluster has seen .*: its directory is an old copy")
		put(t, backup, c.dir)
		c.start()
		f.ready()
	})
	f.run("an empty directory, and nothing else said", func(t *testing.T) {
		m := f.member("d")
		m.start()
		m.ended(1, "is empty: start with --bootstrap to found a cluster there, with --join to become a node of one")
		if _, err := os.Stat(m.dir); err == nil {
			t.Error("the refused start has made the directory")
		}
	})
	f.run("a directory that is a file", func(t *testing.T) {
		m := f.member("d")
		if err := os.WriteFile(m.dir, []byte("not a directory"), 0o600); err != nil {
			t.Fatal(err)
		}
		m.start("--bootstrap")
		m.ended(1, "data directory: .*not a directory")
	})
	f.run("a directory of another cluster", func(t *testing.T) {
		other := newFleet(t)
		x := other.member("x")
		x.start("--bootstrap", "--cluster", "wharf")
		other.ready()
		x.stop()
		x.start("--cluster", "hanse")
		x.ended(1, `belongs to cluster "wharf", not "hanse"`)
		x.start("--node-id", "7")
		x.ended(1, `belongs to node 1, not 7`)
		x.start("--join", a.addr(0), "--join-token", "any") // it has data and is not to join
		other.ready()
		if v, err := other.overview(); err != nil || v.Cluster.ID != "wharf" || len(v.Nodes) != 1 {
			t.Errorf("the other cluster is %+v, %v", v, err)
		}
	})
	f.run("a directory of another cluster of the same name, at the same addresses", func(t *testing.T) {
		own := make([]string, len(nodes))
		for i, m := range nodes {
			m.stop()
			own[i], m.dir = m.dir, f.tempDir()+"/other"
		}
		for _, m := range nodes {
			m.start(m.founding...)
		}
		f.ready()
		for _, m := range nodes {
			m.stop()
		}
		a.dir, b.dir = own[0], own[1]
		for _, first := range []*member{a, c} { // the stranger is among those that are there, or comes to them
			first.start()
			for _, m := range nodes {
				if m != first {
					m.start()
				}
			}
			c.ended(1, "two clusters that are both called \"hanse\": one of them runs on a directory of the other cluster")
			f.until("a and b go on without c", func() error { return f.serves(a, b) })
			a.stop()
			b.stop()
		}
		c.dir = own[2]
		for _, m := range nodes {
			m.start()
		}
		f.ready()
	})
	f.run("a stranger where a peer was", func(t *testing.T) {
		c.kill()
		other := newFleet(t)
		x := other.member("x")
		x.port = c.port
		x.start("--bootstrap", "--cluster", "wharf")
		other.ready()
		a.kill()
		a.start() // among its peers is the stranger
		f.until("a and b go on without c", func() error { return f.serves(a, b) })
		x.kill()
		c.start()
		f.ready()
	})
	f.run("one after the other moves to other addresses", func(t *testing.T) {
		for _, m := range nodes {
			m.stop()
			m.port = freePort(t)
			m.start()
			f.ready()
			n, err := f.node(m)
			if err != nil || n.Peers != m.addr(2) || n.Gossip != m.addr(3) {
				t.Errorf("%s is known as %+v, %v", m.name, n, err)
			}
		}
	})
	f.run("two move at once", func(t *testing.T) {
		for _, m := range []*member{b, c} {
			m.stop()
			m.port = freePort(t)
		}
		b.start()
		c.start()
		f.ready()
	})
	f.run("nobody has taken harm", func(t *testing.T) {
		v := f.seen()
		if len(v.Nodes) != 3 || slices.ContainsFunc(v.Nodes, func(n client.Node) bool { return n.Replicas != 6 }) {
			t.Errorf("nodes %+v, want three with 6 replicas each", v.Nodes)
		}
		f.audit()
	})
}
