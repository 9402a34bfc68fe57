package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hanse/client"
)

func TestClocks(t *testing.T) {
	slow(t)
	f := newFleet(t)
	nodes := f.found(3, few...)
	a, b, c := nodes[0], nodes[1], nodes[2]
	skew := filepath.Join(f.tempDir(), "skew")
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(skew+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(skew+".new", skew); err != nil {
			t.Fatal(err)
		}
	}

	f.run("an hour off at the start", func(t *testing.T) {
		c.stop()
		c.env = []string{"HANSE_TEST_CLOCK=+1h"}
		c.start()
		c.ended(1, "the clock of this node is (1h0m0|59m59).*s ahead of the others', and 500ms is the most: set it")
		if err := f.serves(a, b); err != nil {
			t.Error(err)
		}
	})
	f.run("120 ms off is worth a warning", func(t *testing.T) {
		set("+120ms")
		c.env = []string{"HANSE_TEST_CLOCK=@" + skew}
		c.start()
		f.ready()
		warning := regexp.MustCompile(`\nc? *3 .*c .* active .*\+1[0-9]{2}\.[0-9] ms +healthy: its clock is 1[0-9]{2} ms ahead of the others`)
		f.until("node list warns", func() error {
			out, _, _ := f.hanse("node", "list")
			if !warning.MatchString(out) {
				return errors.New(out)
			}
			return nil
		})
	})
	f.run("300 ms off, it leads nothing", func(t *testing.T) {
		f.balanced()
		set("+300ms")
		f.health(c, client.Unhealthy)
		f.until("c leads nothing", func() error {
			v, err := f.agreed()
			if err != nil {
				return err
			}
			for _, sh := range v.shards {
				if sh.Leader == 3 || sh.Leader == 0 {
					return fmt.Errorf("%s is led by %d", sh.ID, sh.Leader)
				}
			}
			return f.serves(a, b, c)
		})
	})
	f.run("right again, it leads its share", func(t *testing.T) {
		set("+0s")
		f.ready()
		f.balanced()
	})
	f.run("an hour off while it runs, it stops", func(t *testing.T) {
		set("-1h")
		c.ended(1, "the clock of this node is (1h0m0|59m59).*s behind the others'")
		if err := f.serves(a, b); err != nil {
			t.Error(err)
		}
		set("+0s")
		c.start()
		f.ready()
		f.audit()
	})
}

// What a dead node had is rebuilt where that may be, and where it may not be the cluster says so.
func TestRolesAndDeadNodes(t *testing.T) {
	slow(t)
	f := newFleet(t)
	nodes := f.found(3, few...)
	a, c := nodes[0], nodes[2]
	f.makeToken()
	d := f.member("d", "--roles", "order,payment")
	hosts := func(v view, id string) string { return fmt.Sprint(v.hosting(id)) }

	f.run("a role that there is not", func(t *testing.T) {
		m := f.member("x")
		m.join("--roles", "order,billing")
		m.ended(2, `role "billing": there is no such service`)
	})
	f.run("a node hosts what its roles say", func(t *testing.T) {
		d.join()
		f.ready()
		f.balanced(d)
		v := f.seen()
		for _, sh := range v.shards {
			if hosted := slices.Contains(v.hosting(sh.ID), 4); hosted && !strings.HasPrefix(sh.ID, "order/") && !strings.HasPrefix(sh.ID, "payment/") {
				t.Errorf("node 4 has roles order and payment, and a replica of %s", sh.ID)
			}
		}
		f.command(1, []string{"shard", "move", "inventory/0", "--from", "3", "--to", "4"}, "node 4 has the roles order, payment and does not host inventory/0")
		if err := f.serves(d); err != nil {
			t.Error(err)
		}
	})
	f.run("dead for long enough, it is replaced where another may take its part", func(t *testing.T) {
		f.command(0, []string{"node", "down-after", "2s"}, "rebuilt after 2s")
		c.kill()
		f.until("node 4 has what it may have of node 3", func() error {
			v, err := f.agreed()
			if err != nil {
				return err
			}
			for _, id := range []string{"order/0", "payment/0"} {
				if got := hosts(v, id); got != "[1 2 4]" {
					return fmt.Errorf("%s is on %s", id, got)
				}
			}
			if !slices.ContainsFunc(v.Cluster.Blocked, func(s string) bool {
				return strings.Contains(s, "inventory/0 has 2 of 3 replicas, and no node can take another")
			}) {
				return fmt.Errorf("blocked: %q", v.Cluster.Blocked)
			}
			return nil
		})
		f.command(0, []string{"node", "list"}, "Blocked: inventory/0 has 2 of 3 replicas, and no node can take another: 3 nodes host inventory")
		f.happened("node.dead", "3", "")
	})
	f.run("back, it catches up and takes its share", func(t *testing.T) {
		c.start()
		f.ready()
		f.balanced(d)
		v := f.seen()
		for _, sh := range v.shards {
			if len(sh.Replicas) != 3 {
				t.Errorf("%s has %d replicas", sh.ID, len(sh.Replicas))
			}
		}
		if len(v.Cluster.Blocked) > 0 {
			t.Errorf("blocked: %q", v.Cluster.Blocked)
		}
		if err := f.serves(a, c, d); err != nil {
			t.Error(err)
		}
	})
	f.run("started again with other roles, a founder gives away what they exclude", func(t *testing.T) {
		a.stop()
		a.start("--roles", "meta,order,inventory,notification,keyspace")
		f.until("payment/0 has left node 1", func() error {
			v, err := f.agreed()
			if err == nil && hosts(v, "payment/0") != "[2 3 4]" {
				err = fmt.Errorf("it is on %s, blocked: %q", hosts(v, "payment/0"), v.Cluster.Blocked)
			}
			return err
		})
		f.ready()
		if err := f.serves(a, c, d); err != nil {
			t.Error(err)
		}
		f.audit()
	})
	f.run("who moves the money is the same on all nodes that host payments, or it is said", func(t *testing.T) {
		blocked := func(want string) {
			f.until("blocked: "+want, func() error {
				v, err := f.agreed()
				if err != nil {
					return err
				}
				if got := strings.Join(v.Cluster.Blocked, "; "); want == "" && got != "" || !strings.HasPrefix(got, want) {
					return fmt.Errorf("blocked: %q", got)
				}
				return nil
			})
		}
		d.stop()
		d.start("--psp", "http://till:secret@127.0.0.1:1/v1/")
		blocked("payments go to instant on nodes 2, 3, to http://127.0.0.1:1/v1 on node 4: start all nodes with the same --psp")
		d.stop()
		d.start()
		blocked("")
	})
}

func TestZones(t *testing.T) {
	slow(t)
	f := newFleet(t)
	zones := []string{"a", "b", "c", "a", "b"}
	for i, zone := range zones {
		m := f.member(fmt.Sprintf("%s%d", zone, i+1), "--zone", zone)
		if i == 0 {
			m.args = append(m.args, "--name", m.name)
			m.start(append([]string{"--bootstrap"}, few...)...)
			f.ready()
			f.makeToken()
			continue
		}
		m.join()
		f.id(m) // one after the other, so that their numbers are in order
	}
	var lost string
	zoneOf := func(node uint64) string { return zones[node-1] }
	spread := func() error {
		v, err := f.agreed()
		if err != nil {
			return err
		}
		for _, sh := range v.shards {
			seen := make(map[string]bool)
			for _, n := range v.hosting(sh.ID) {
				seen[zoneOf(n)] = true
			}
			if len(seen) != 3 {
				return fmt.Errorf("%s is on %v, in %d zones", sh.ID, v.hosting(sh.ID), len(seen))
			}
		}
		return v.sound()
	}

	f.run("copies are in three zones", func(t *testing.T) {
		f.ready()
		f.until("all shards are in three zones", spread)
	})
	f.run("the last node of a zone stays", func(t *testing.T) {
		f.command(1, []string{"node", "decommission", "3"}, "decommission of node 3: it is the last of zone c for meta/0, which would have to put 3 replicas into 2 zones; add a node there first")
	})
	f.run("a zone is lost, and nothing stops", func(t *testing.T) {
		placed, stop := f.customers()
		lost = zoneOf(f.id(f.leader("order/0")))
		var rest []*member
		for i, m := range f.nodes {
			if zones[i] == lost {
				m.kill()
			} else {
				rest = append(rest, m)
			}
		}
		for i, m := range f.nodes {
			if zones[i] == lost {
				f.health(m, client.Unhealthy, client.Dead)
			}
		}
		before := placed()
		f.until("orders go on", func() error {
			if n := placed(); n < before+50 && !t.Failed() {
				return fmt.Errorf("%d", n-before)
			}
			return nil
		})
		stop()
		if err := f.serves(rest...); err != nil {
			t.Error(err)
		}
	})
	f.run("and comes back", func(t *testing.T) {
		for i, m := range f.nodes {
			if zones[i] == lost {
				m.start()
			}
		}
		f.ready()
		f.until("all shards are in three zones", spread)
		f.audit()
	})
}

// outliving are the shards without which nobody could say what another has lost: the plan, and the one that keeps the keys of requests.
var outliving = []string{"meta/0", "order/0"}

// doomed returns two of a shard's hosts that are a majority of none of those that have to outlive it; nil when there are none.
func (v view) doomed(hosts []uint64) []uint64 {
	for i := range hosts {
		pair := slices.Delete(slices.Clone(hosts), i, i+1)
		if !slices.ContainsFunc(outliving, func(id string) bool { return len(intersect(pair, v.hosting(id))) == len(pair) }) {
			return pair
		}
	}
	return nil
}

// away returns a move after which some hosts can be doomed.
func (v view) away(hosts []uint64) (from, to uint64) {
	for to := uint64(1); to <= 5; to++ {
		for i, from := range hosts {
			after := slices.Clone(hosts)
			if after[i] = to; !slices.Contains(hosts, to) && v.doomed(after) != nil {
				return from, to
			}
		}
	}
	return 0, 0
}

// replica returns the number of a shard's replica on a node.
func (v view) replica(id string, node uint64) uint64 {
	for _, sh := range v.shards {
		for _, r := range sh.Replicas {
			if sh.ID == id && r.Node == node {
				return r.ID
			}
		}
	}
	return 0
}

func TestLostMajority(t *testing.T) {
	slow(t)
	const lost = "keyspace/0"
	f := newFleet(t)
	f.found(5, few...)
	f.balanced()
	v := f.seen()
	if hosts := v.hosting(lost); v.doomed(hosts) == nil {
		from, to := v.away(hosts)
		f.command(0, []string{"shard", "move", lost, "--from", number(from), "--to", number(to), "--wait"}, lost+" is on node "+number(to))
		f.ready()
		v = f.seen()
	}
	// Two of its nodes die. The survivor knows all that was answered: everything has settled.
	hosts := v.hosting(lost)
	dying := v.doomed(hosts)
	if dying == nil {
		t.Fatalf("%s is on nodes %v, and any two of them are a majority of another shard: %+v", lost, hosts, v.shards)
	}
	survivor := hosts[slices.IndexFunc(hosts, func(n uint64) bool { return !slices.Contains(dying, n) })]
	missing := fmt.Sprintf("of its nodes %s these are missing: %s", list(hosts), list(dying))
	if _, err := f.client().Put(t.Context(), "default", "motto", []byte("old")); err != nil {
		t.Fatal(err)
	}
	f.until("all replicas have it", func() error {
		v, err := f.agreed()
		if err != nil {
			return err
		}
		for _, sh := range v.shards {
			for _, r := range sh.Replicas {
				if sh.ID == lost && r.Match < sh.Commit {
					return fmt.Errorf("%+v", sh)
				}
			}
		}
		return nil
	})
	f.command(1, []string{"shard", "recover", lost, "--unsafe"}, lost+" has a leader, node .*: there is nothing to recover")
	for _, n := range dying {
		f.nodes[n-1].kill()
	}
	for _, n := range dying {
		f.health(f.nodes[n-1], client.Unhealthy, client.Dead)
	}
	alive := f.nodes[survivor-1]

	f.run("stale reads work, writes say what is missing", func(t *testing.T) {
		f.until("a stale read", func() error { return f.motto(alive, "old") })
		c, err := client.New(client.Config{Addrs: []string{alive.addr(0)}, Pinned: true, RetryFor: -1, AttemptTimeout: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Put(t.Context(), "default", "motto", []byte("never"))
		var problem *client.Error
		if !errors.As(err, &problem) || problem.Status != 503 || !strings.Contains(problem.Detail, "shard "+lost) || !strings.Contains(problem.Detail, missing) {
			t.Errorf("a write without a majority: %v, want 503 with %q", err, missing)
		}
	})
	var confirm string
	f.run("recovery says what it would do", func(t *testing.T) {
		f.command(2, []string{"shard", "recover", lost}, "say --unsafe")
		out := f.command(1, []string{"shard", "recover", lost, "--unsafe"}, "survives on +"+number(survivor), "missing on +"+list(dying), "Nothing has been done")
		m := regexp.MustCompile(`--confirm "(.*)"`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no words to confirm it with:\n%s", out)
		}
		confirm = m[1]
		f.command(1, []string{"shard", "recover", lost, "--unsafe", "--confirm", confirm + " please"}, "What was confirmed is not what would be done", "Nothing has been done")
		f.command(1, []string{"shard", "recover", "keyspace/7", "--unsafe"}, "there is no shard")
	})
	f.run("confirmed, it goes on", func(t *testing.T) {
		f.command(0, []string{"shard", "recover", lost, "--unsafe", "--confirm", confirm}, "goes on with the replica of node "+number(survivor)+" alone")
		f.happened("shard.recovered", lost, confirm)
		f.until("a write", func() error {
			_, err := f.client(alive).Put(t.Context(), "default", "motto", []byte("new"))
			return err
		})
	})
	f.run("what the lost nodes had does not come back", func(t *testing.T) {
		// They come back together, and at first meet nobody but one another: they are a majority of what the shard was.
		var back, others []*member
		for i, m := range f.nodes {
			if slices.Contains(dying, uint64(i+1)) {
				back = append(back, m)
				m.start()
			} else {
				others = append(others, m)
				m.pause()
			}
		}
		back[0].orOther(back[1], "msg=leading .*shard="+lost)
		for _, m := range others {
			m.resume()
		}
		for _, m := range back {
			f.until(m.name+" answers", func() error {
				err := f.motto(m, "new")
				if err != nil && strings.Contains(err.Error(), `"old"`) {
					t.Fatalf("what was before the recovery is served: %v", err)
				}
				return err
			})
		}
		for _, m := range back {
			m.says(fmt.Sprintf(`shard=%s step="destroy replica %d, next`, lost, v.replica(lost, f.id(m))))
		}
		f.ready()
		f.balanced()
		for _, m := range f.nodes {
			if err := f.motto(m, "new"); err != nil {
				t.Error(err)
			}
		}
		f.audit()
	})
}

// intersect returns those of some nodes that are among others too.
func intersect(nodes, others []uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(nodes), func(n uint64) bool { return !slices.Contains(others, n) })
}

func list(nodes []uint64) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(nodes), " ", ", "), "[]")
}

// motto reads a key at a node, which may be stale, and says when it is not what it should be.
func (f *fleet) motto(by *member, want string) error {
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://"+by.addr(0)+"/v1/keyspaces/default/keys/motto?consistency=stale", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	value, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if string(value) != want {
		return fmt.Errorf("%s says %d %q, want %q", by.name, answer.StatusCode, value, want)
	}
	return nil
}
