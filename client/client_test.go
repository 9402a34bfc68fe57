package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// network is a transport to nodes that are functions, for virtual time. It keeps who was asked for what, and when.
type network struct {
	nodes map[string]func(*http.Request) (*http.Response, error)

	mu    sync.Mutex
	asked []string // "node method path key"
	keys  []string
	times []time.Time
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.asked = append(n.asked, r.URL.Host+" "+r.Method+" "+r.URL.EscapedPath())
	n.keys = append(n.keys, r.Header.Get("Idempotency-Key"))
	n.times = append(n.times, time.Now())
	n.mu.Unlock()
	return n.nodes[r.URL.Host](r)
}

// hosts are those asked, in order.
func (n *network) hosts() string {
	var all []string
	for _, a := range n.asked {
		host, _, _ := strings.Cut(a, ":")
		all = append(all, host)
	}
	return strings.Join(all, " ")
}

func answer(status int, body string, header ...string) (*http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}, nil
}

func healthy(*http.Request) (*http.Response, error) {
	return answer(200, `{"id":"ord_1","state":"confirmed"}`)
}

func dead(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// script answers with one after the other; the last one stays.
func script(steps ...func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	i := 0
	return func(r *http.Request) (*http.Response, error) {
		step := steps[min(i, len(steps)-1)]
		i++
		return step(r)
	}
}

func problem(status int, code string, retryable bool, afterMS int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		body := fmt.Sprintf(`{"code":%q,"status":%d,"detail":"says the node","retryable":%v,"retry_after_ms":%d}`, code, status, retryable, afterMS)
		return answer(status, body, header...)
	}
}

// pinned returns a client of the nodes whose first request goes to the first of them.
func pinned(t *testing.T, n *network, change func(*Config), addrs ...string) *Client {
	t.Helper()
	cfg := Config{Addrs: addrs, Pinned: true, Transport: n}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.pool.next = 0
	return c
}

func TestAChangeIsRepeatedWithItsKeyUntilItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": script(
			problem(503, "unavailable", true, 1000),
			problem(429, "overloaded", true, 0, "Retry-After", "2"),
			problem(504, "outcome_unknown", true, 200),
			problem(409, "idempotency_key_in_progress", true, 1000, "Retry-After", "1"),
			func(*http.Request) (*http.Response, error) {
				return answer(502, "<html>bad gateway</html>") // a proxy's
			},
			func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, // the connection broke
			healthy,
		)}}
		c := pinned(t, n, nil, "a:1")
		o, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{Currency: "EUR"})
		if err != nil || o.ID != "ord_1" {
			t.Fatalf("PlaceOrder = %+v, %v", o, err)
		}
		if len(n.keys) != 7 {
			t.Fatalf("asked %d times, want 7: %v", len(n.keys), n.asked)
		}
		for i, key := range n.keys {
			if key == "" || key != n.keys[0] {
				t.Errorf("request %d had the key %q, the first had %q", i+1, key, n.keys[0])
			}
		}
		for i, atLeast := range []time.Duration{time.Second, 2 * time.Second, 200 * time.Millisecond, time.Second} {
			if paused := n.times[i+1].Sub(n.times[i]); paused <= atLeast || paused > atLeast+maxPause {
				t.Errorf("pause %d was %v, want Retry-After, %v, and a little more", i+1, paused, atLeast)
			}
		}
	})
}

// A node that is cut off says that it reaches no leader: another is asked before anybody waits. Two that say so are believed.
func TestAnotherNodeIsAskedBeforeWaiting(t *testing.T) {
	for name, test := range map[string]struct {
		cut    func(*http.Request) (*http.Response, error)
		other  func(*http.Request) (*http.Response, error)
		within time.Duration
		asked  int // at most
	}{
		"one reaches no leader":         {cut: problem(503, "unavailable", true, 1000), other: healthy, within: 2 * minPause, asked: 2},
		"one has had no answer in time": {cut: problem(504, "outcome_unknown", true, 1000), other: healthy, within: 2 * minPause, asked: 2},
		"one is full":                   {cut: problem(503, "overloaded", true, 1000), other: healthy, within: time.Second + 2*minPause, asked: 2},
		"an election": {cut: problem(503, "unavailable", true, 1000), within: time.Second + 6*minPause, asked: 4, other: script(
			problem(503, "unavailable", true, 1000), healthy)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": test.cut, "b:1": test.other}}
				c := pinned(t, n, nil, "a:1", "b:1")
				began := time.Now()
				if _, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{Currency: "EUR"}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > test.within || test.within > time.Second && took < time.Second {
					t.Errorf("answered after %v, want %v at most, and not before Retry-After where it counts", took, test.within)
				}
				if len(n.asked) > test.asked {
					t.Errorf("asked %v", n.asked)
				}
			})
		})
	}
}

func TestTheCallersKeyIsUsed(t *testing.T) {
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": healthy}}
	c := pinned(t, n, nil, "a:1")
	if _, err := c.PlaceOrder(t.Context(), "invoice-536365", &PlaceOrder{}); err != nil {
		t.Fatal(err)
	}
	if n.keys[0] != "invoice-536365" {
		t.Errorf("the key was %q", n.keys[0])
	}
	if _, err := c.Order(t.Context(), "ord_1", 0); err != nil || n.keys[1] != "" {
		t.Errorf("a read: %v, with key %q, want none", err, n.keys[1])
	}
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	for _, test := range []struct {
		name      string
		node      func(*http.Request) (*http.Response, error)
		code      string
		status    int
		retryable bool
	}{
		{"out of stock", problem(409, "out_of_stock", false, 0), "out_of_stock", 409, false},
		{"another body under the key", problem(422, "idempotency_key_reused", false, 0), "idempotency_key_reused", 422, false},
		{"not found", problem(404, "order_not_found", false, 0), "order_not_found", 404, false},
		{"a fault is for a person to look at", problem(500, "internal", true, 0), "internal", 500, true},
		{"a node that must not be asked again", problem(503, "clock_off", false, 0), "clock_off", 503, false},
		{"not a Hanse at all", func(*http.Request) (*http.Response, error) { return answer(418, "I am a teapot") }, "http_418", 418, false},
		{"a redirect of something in between", func(*http.Request) (*http.Response, error) { return answer(301, "") }, "http_301", 301, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": test.node}}
			c := pinned(t, n, nil, "a:1")
			_, err := c.Order(t.Context(), "ord_1", 0)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != test.code || e.Status != test.status || e.Retryable != test.retryable {
				t.Errorf("got %#v, want code %s, status %d, retryable %v", err, test.code, test.status, test.retryable)
			}
			if len(n.asked) != 1 {
				t.Errorf("asked %d times, want once", len(n.asked))
			}
		})
	}
}

func TestARefusalNamesFieldAndOrder(t *testing.T) {
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(*http.Request) (*http.Response, error) {
		return answer(409, `{"code":"out_of_stock","status":409,"detail":"3 asked for, 1 available",
			"errors":[{"pointer":"/lines/0/sku","code":"out_of_stock","detail":"3 asked for, 1 available"}],
			"order_id":"ord_9","order":{"id":"ord_9","state":"rejected"},"retryable":false}`)
	}}}
	_, err := pinned(t, n, nil, "a:1").PlaceOrder(t.Context(), "", &PlaceOrder{})
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	if e.Field() != "/lines/0/sku" || e.Order == nil || e.Order.State != "rejected" || e.OrderID != "ord_9" {
		t.Errorf("field %q, order %+v", e.Field(), e.Order)
	}
	if want := "out_of_stock: /lines/0/sku: 3 asked for, 1 available"; e.Error() != want {
		t.Errorf("Error() = %q, want %q", e.Error(), want)
	}
}

func TestADeadNodeIsLeftAtOnceAndTriedAgainNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": dead, "b:1": healthy, "c:1": healthy}}
		c := pinned(t, n, nil, "a:1", "b:1", "c:1")
		began := time.Now()
		for range 5 {
			if _, err := c.Order(t.Context(), "ord_1", 0); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v, want no pause at all", took)
		}
		if got, want := n.hosts(), "a b c b c b"; got != want {
			t.Errorf("asked %s, want %s: the dead one once", got, want)
		}
		// One request in its time finds out that it is back; the next wait is twice as long when it is not.
		ask := func(after time.Duration) string {
			time.Sleep(after)
			n.asked = nil
			for range 3 {
				if _, err := c.Order(t.Context(), "ord_1", 0); err != nil {
					t.Fatal(err)
				}
			}
			return n.hosts()
		}
		if got := ask(500 * time.Millisecond); strings.Contains(got, "a") {
			t.Errorf("after half a second asked %s, too early", got)
		}
		if got := ask(600 * time.Millisecond); strings.Count(got, "a") != 1 {
			t.Errorf("after a second asked %s, want one try of a", got)
		}
		if got := ask(time.Second); strings.Contains(got, "a") {
			t.Errorf("a second later asked %s, want two seconds of rest", got)
		}
		n.nodes["a:1"] = healthy
		if got := ask(1100 * time.Millisecond); strings.Count(got, "a") != 1 {
			t.Errorf("when it is back asked %s, want all three", got)
		}
		if got := ask(0); strings.Count(got, "a") != 1 {
			t.Errorf("after that asked %s, want all three in turn", got)
		}
	})
}

func TestANodeThatIsStoppedIsLeftSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": hangs, "b:1": healthy}}
		c := pinned(t, n, nil, "a:1", "b:1")
		began := time.Now()
		if _, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{}); err != nil || time.Since(began) != silentFor+pulseTime {
			t.Errorf("got %v after %v, want %v", err, time.Since(began), silentFor+pulseTime)
		}
		if k := len(n.keys); n.asked[1] != "a:1 GET /livez" || n.keys[0] == "" || n.keys[0] != n.keys[k-1] {
			t.Errorf("asked %q with keys %q, want whether it lives, then the other with the same key", n.asked, n.keys)
		}
		only := pinned(t, n, func(cfg *Config) { cfg.RetryFor = time.Second }, "a:1")
		if _, err := only.Order(t.Context(), "ord_1", 0); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errSilent) {
			t.Errorf("alone: %v", err)
		}
	})
}

func TestANodeThatLivesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/livez" {
				return answer(200, "alive")
			}
			select {
			case <-time.After(8 * time.Second):
				return healthy(r)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": slow, "b:1": healthy}}
		c := pinned(t, n, nil, "a:1", "b:1")
		began := time.Now()
		if _, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{}); err != nil || time.Since(began) != 8*time.Second || strings.Contains(n.hosts(), "b") {
			t.Errorf("got %v after %v from %s, want the answer of a after 8 s", err, time.Since(began), n.hosts())
		}
		// But not for ever: an attempt ends, besides the time the saga may take.
		c = pinned(t, n, func(cfg *Config) { cfg.AttemptTimeout, cfg.Wait = 3*time.Second, 4*time.Second }, "a:1", "b:1")
		began = time.Now()
		if _, err := c.Order(t.Context(), "ord_1", 0); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("a read: %v after %v, want 3 s", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		c.pool.next, began = 0, time.Now()
		if _, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{}); err != nil || time.Since(began) != 7*time.Second {
			t.Errorf("a request that waits for the saga: %v after %v, want 7 s", err, time.Since(began))
		}
	})
}

func TestItGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": dead, "b:1": dead, "busy:1": problem(503, "unavailable", true, 400)}}
		c := pinned(t, n, func(cfg *Config) { cfg.RetryFor = 5 * time.Second }, "a:1", "b:1")
		began := time.Now()
		_, err := c.Order(t.Context(), "ord_1", 0)
		if took := time.Since(began); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || took < 3*time.Second || took > 5*time.Second {
			t.Errorf("got %v after %v, want ErrUnavailable with its cause in 5 s", err, took)
		}
		if len(n.asked) > 40 {
			t.Errorf("asked %d times in 5 s", len(n.asked))
		}

		busy := pinned(t, n, func(cfg *Config) { cfg.RetryFor = 5 * time.Second }, "busy:1")
		_, err = busy.Order(t.Context(), "ord_1", 0)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != "unavailable" || !e.Retryable {
			t.Errorf("a busy cluster: %v, want what it said last", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = busy.Order(ctx, "ord_1", 0)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("with a deadline: %v after %v, want one second", err, time.Since(began))
		}

		once := pinned(t, n, func(cfg *Config) { cfg.RetryFor = -1 }, "busy:1")
		n.asked = nil
		if _, err = once.Order(t.Context(), "ord_1", 0); err == nil || len(n.asked) != 1 {
			t.Errorf("without repetitions: %v, asked %d times", err, len(n.asked))
		}
	})
}

// member answers as node id of a cluster whose nodes are listed, with a row for each: rest address, state, health.
func member(id int, cluster string, nodes *[][3]string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Path != nodesPath {
			return healthy(r)
		}
		v := Overview{Cluster: ClusterInfo{ID: cluster}}
		for i, n := range *nodes {
			v.Nodes = append(v.Nodes, Node{ID: uint64(i + 1), REST: n[0], State: n[1], Health: n[2], Self: i+1 == id})
		}
		body, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		return answer(200, string(body))
	}
}

// unpinned returns a client that learns nodes, and a function that asks for an order so many times and says whom.
func unpinned(t *testing.T, n *network, addrs ...string) (*Client, func(times int) string) {
	t.Helper()
	c, err := New(Config{Addrs: addrs, Transport: n})
	if err != nil {
		t.Fatal(err)
	}
	c.pool.next = 0
	return c, func(times int) string {
		t.Helper()
		n.asked = nil
		for range times {
			if _, err := c.Order(t.Context(), "ord_1", 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // for probes
		}
		return n.hosts()
	}
}

func TestItLearnsTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := [][3]string{{"a:1", Active, Healthy}, {"b:1", Active, Healthy}, {"c:1", Active, Suspect}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){}}
		for i, host := range []string{"a:1", "b:1", "c:1", "d:1"} {
			n.nodes[host] = member(i+1, "hanse", &nodes)
		}
		c, ask := unpinned(t, n, "a:1")
		ask(4)
		if all := strings.Join(n.asked, "\n"); n.asked[0] != "a:1 GET /v1/nodes" || strings.Count(all, nodesPath) != 3 {
			t.Errorf("asked %q, want a for the nodes at first, then each of the others once whether it answers", n.asked)
		}
		if got, want := c.Addrs(), []string{"a:1", "b:1", "c:1"}; !slices.Equal(got, want) {
			t.Errorf("it uses %v, want %v", got, want)
		}
		// Later node 2 has gone for good, and a fourth has come; what was given stays whatever the nodes say.
		nodes = append(nodes, [3]string{"d:1", Active, Healthy})
		nodes[1][1] = Decommissioned
		time.Sleep(learnEvery)
		ask(1)
		if got, want := c.Addrs(), []string{"a:1", "c:1", "d:1"}; !slices.Equal(got, want) {
			t.Errorf("it uses %v, want %v", got, want)
		}
		// Nodes that cannot be learned are not missed.
		for host := range n.nodes {
			n.nodes[host] = func(r *http.Request) (*http.Response, error) {
				if r.URL.Path == nodesPath {
					return answer(200, "a page of a proxy")
				}
				return healthy(r)
			}
		}
		time.Sleep(learnEvery)
		ask(1)
		if got, want := c.Addrs(), []string{"a:1", "c:1", "d:1"}; !slices.Equal(got, want) {
			t.Errorf("it uses %v, want %v", got, want)
		}
		c.Close()
	})
}

// The addresses that nodes tell of one another are those of their own network.
func TestAddressesThatLeadNowhereAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := [][3]string{{"a:1", Active, Healthy}, {"lost:1", Active, Healthy}, {"silent:1", Active, Healthy}, {"other:1", Active, Healthy}, {"swapped:1", Active, Healthy}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){
			"balancer:1": member(1, "hanse", &nodes), "a:1": dead, "lost:1": dead, "silent:1": hangs,
			"other:1": member(4, "a cluster on this machine", &nodes), "swapped:1": member(1, "hanse", &nodes),
		}}
		c, ask := unpinned(t, n, "balancer:1")
		began := time.Now()
		for range 20 {
			ask(3)
			for _, asked := range n.asked {
				if strings.Contains(asked, "ord_1") && !strings.HasPrefix(asked, "balancer:1 ") {
					t.Fatalf("asked %s", asked)
				}
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("it took %v, want no time at all besides the pauses", took)
		}
		if got := c.Addrs(); !slices.Equal(got, []string{"balancer:1"}) {
			t.Errorf("it uses %v, want what answers as it should", got)
		}
		c.Close()
	})
}

func TestNodesThatAreToBeStoppedAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := [][3]string{{"a:1", Draining, Healthy}, {"b:1", Active, Healthy}, {"c:1", Active, Unhealthy}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){}}
		for i, host := range []string{"a:1", "b:1", "c:1"} {
			n.nodes[host] = member(i+1, "hanse", &nodes)
		}
		_, ask := unpinned(t, n, "a:1", "b:1", "c:1")
		if got, want := ask(4), "a b b b b"; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
		// They are better than nobody.
		n.nodes["b:1"] = dead
		if got := ask(2); strings.Count(got, "b") != 1 || len(got) != len("b a c") {
			t.Errorf("asked %s, want b once and then the others", got)
		}
	})
}

func TestABusyNodeIsNotAskedAgainFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": problem(503, "overloaded", true, 10), "b:1": healthy}}
		c := pinned(t, n, nil, "a:1", "b:1")
		for range 5 {
			n.asked, n.keys, c.pool.next = nil, nil, 0
			go func() { // another request in between, so that it would be the busy one's turn
				time.Sleep(5 * time.Millisecond)
				c.pool.pick(time.Now(), nil)
			}()
			if _, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{}); err != nil || n.hosts() != "a b" || n.keys[0] != n.keys[1] {
				t.Errorf("asked %s with keys %q (%v), want a, then b with the same key", n.hosts(), n.keys, err)
			}
		}
	})
}

func TestItLooksForOthersSoonAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := [][3]string{{"a:1", Active, Healthy}, {"b:1", Active, Healthy}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": member(1, "hanse", &nodes), "b:1": member(2, "hanse", &nodes), "c:1": member(3, "hanse", &nodes)}}
		c, ask := unpinned(t, n, "a:1", "b:1")
		ask(2)
		nodes, n.nodes["a:1"] = append(nodes, [3]string{"c:1", Active, Healthy}), dead
		ask(2)        // one of the two finds a gone
		for range 2 { // the first may ask a which nodes there are
			time.Sleep(learnSoon)
			ask(1)
		}
		if got, want := c.Addrs(), []string{"b:1", "c:1"}; !slices.Equal(got, want) {
			t.Errorf("it uses %v, want %v", got, want)
		}
		c.Close()
	})
}

func TestGivenAddressesThatAreNoNodesComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := [][3]string{{"a:1", Active, Healthy}, {"not an address", Active, Healthy}}
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": member(1, "hanse", &nodes), "balancer:1": member(2, "hanse", &nodes), "x:1": dead}}
		c := pinned(t, n, nil, "http://a:1", "x:1")
		if err := c.Discover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.Addrs(); !slices.Equal(got, []string{"a:1"}) {
			t.Errorf("it uses %v, want the node alone", got)
		}
		// What has answered stays in use, whatever it calls itself.
		c = pinned(t, n, nil, "balancer:1")
		if err := c.Discover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.Addrs(); !slices.Equal(got, []string{"balancer:1", "a:1"}) {
			t.Errorf("it uses %v, want the balancer and the node", got)
		}
		c.Close()
		if err := c.Discover(t.Context()); err != nil {
			t.Errorf("after Close: %v, want the nodes that it knows", err)
		}
	})
}

func TestAddressesAreChecked(t *testing.T) {
	for _, test := range []struct {
		addr string
		base string // empty when it is refused
	}{
		{"127.0.0.1:7400", "http://127.0.0.1:7400"},
		{"[::1]:7400", "http://[::1]:7400"},
		{"http://shop.example:7400", "http://shop.example:7400"},
		{"https://hanse.example/", "https://hanse.example"},
		{"127.0.0.1", ""},
		{"", ""},
		{"ftp://127.0.0.1:7400", ""},
		{"http://ann:secret@127.0.0.1:7400", ""},
		{"http://127.0.0.1:7400/v1", ""},
	} {
		n, err := newNode(test.addr, true)
		if (err == nil) != (test.base != "") || err == nil && n.base != test.base {
			t.Errorf("newNode(%q) = %+v, %v, want %q", test.addr, n, err, test.base)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New without an address succeeded")
	}
	if _, err := New(Config{Addrs: []string{"x", "y"}}); err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("New with two wrong addresses: %v, want both named", err)
	}
}

func TestWaitIsAsked(t *testing.T) {
	for _, test := range []struct {
		wait time.Duration
		want string
	}{{0, "wait=10"}, {3 * time.Second, "wait=3"}, {-1, "respond-async"}} {
		var prefer string
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(r *http.Request) (*http.Response, error) {
			prefer = r.Header.Get("Prefer")
			return answer(202, `{"id":"ord_1","state":"placing"}`)
		}}}
		c := pinned(t, n, func(cfg *Config) { cfg.Wait = test.wait }, "a:1")
		if o, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{}); err != nil || o.State != "placing" || prefer != test.want {
			t.Errorf("Wait %v: Prefer %q, want %q (%+v, %v)", test.wait, prefer, test.want, o, err)
		}
		if _, err := c.Fulfill(t.Context(), "", "ord_1", nil, ""); err != nil || prefer != "" {
			t.Errorf("shipping waits for nothing, but Prefer is %q (%v)", prefer, err)
		}
	}
}

func TestSequencesReadPageByPage(t *testing.T) {
	n := &network{}
	n.nodes = map[string]func(*http.Request) (*http.Response, error){"a:1": func(r *http.Request) (*http.Response, error) {
		q := r.URL.Query()
		if q.Get("customer_id") != "ann & bob" {
			return answer(400, `{"code":"invalid_request","detail":"`+q.Get("customer_id")+`"}`)
		}
		switch q.Get("cursor") {
		case "":
			return answer(200, `{"orders":[{"id":"o1"},{"id":"o2"}],"has_more":true,"next_cursor":"p 2"}`)
		case "p 2":
			return answer(200, `{"orders":[{"id":"o3"}],"has_more":false}`)
		}
		return answer(400, `{"code":"invalid_cursor"}`)
	}}
	c := pinned(t, n, nil, "a:1")
	var ids []string
	for o, err := range c.AllOrders(t.Context(), "ann & bob") {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, o.ID)
	}
	if !slices.Equal(ids, []string{"o1", "o2", "o3"}) {
		t.Errorf("orders %v, want three", ids)
	}
	n.asked = nil
	for range c.AllOrders(t.Context(), "ann & bob") {
		break
	}
	if len(n.asked) != 1 {
		t.Errorf("asked for %d pages, want only the one that was used", len(n.asked))
	}
	errs := 0
	for _, err := range c.AllOrders(t.Context(), "eve") {
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != "invalid_request" {
			t.Errorf("error %v", err)
		}
		errs++
	}
	if errs != 1 {
		t.Errorf("%d rows with an error, want one", errs)
	}
}

func TestPaymentsOfAllShardsAreListed(t *testing.T) {
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/v1/shards" {
			return answer(200, `{"shards":[],"counts":{"payment":2}}`)
		}
		q := r.URL.Query()
		switch q.Get("shard") + q.Get("after") {
		case "0":
			return answer(200, `{"payments":[{"id":"p1"}],"has_more":true}`)
		case "0p1":
			return answer(200, `{"payments":[{"id":"p2"}]}`)
		case "1":
			return answer(200, `{"payments":[{"id":"p3"}]}`)
		}
		return answer(400, `{"code":"invalid_request"}`)
	}}}
	var ids []string
	for p, err := range pinned(t, n, nil, "a:1").AllPayments(t.Context(), false) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	if !slices.Equal(ids, []string{"p1", "p2", "p3"}) {
		t.Errorf("payments %v, want three", ids)
	}
}

func TestPaymentsOfAllShardsComeInPages(t *testing.T) {
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/v1/shards" {
			return answer(200, `{"shards":[],"counts":{"payment":3}}`)
		}
		q := r.URL.Query()
		switch q.Get("shard") + q.Get("after") {
		case "0":
			return answer(200, `{"payments":[{"id":"p1"},{"id":"p2"}]}`)
		case "0p1":
			return answer(200, `{"payments":[{"id":"p2"}]}`)
		case "2":
			return answer(200, `{"payments":[{"id":"p3"}]}`)
		}
		return answer(200, `{"payments":[]}`)
	}}}
	c := pinned(t, n, nil, "a:1")
	cursor := ""
	for _, want := range []struct{ ids, next string }{{"p1", "0/p1"}, {"p2", "0/p2"}, {"p3", ""}} {
		page, next, err := c.PaymentPage(t.Context(), false, cursor, 1)
		if err != nil || len(page) != 1 || page[0].ID != want.ids || next != want.next {
			t.Fatalf("behind %q: %v, next %q, %v; want %s, next %q", cursor, page, next, err, want.ids, want.next)
		}
		cursor = next
	}
	if _, _, err := c.PaymentPage(t.Context(), false, "p1", 1); err == nil {
		t.Error("a payment's ID passes for a cursor, which names the shard too")
	}
}

// Names of keys and SKUs are anybody's: none may lead to another path, or be redirected to one.
func TestNamesKeepTheirPlaceInPaths(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/stock/{sku}", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(Stock{SKU: r.PathValue("sku")})
	})
	mux.HandleFunc("/v1/keyspaces/{keyspace}/keys/{key...}", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Etag", `"7"`)
			fmt.Fprint(w, r.PathValue("keyspace")+"|"+r.PathValue("key"))
			return
		}
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(Written{Key: r.PathValue("key"), Version: uint64(len(body))})
	})
	addr := serve(t, mux)
	c, err := New(Config{Addrs: []string{addr}, Pinned: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"a", "a/b", "/a//b/", "..", ".", "a/../b", "%2F", "a?b#c", "Zürich ☃", "a b+c;d"} {
		value, version, err := c.Get(t.Context(), "default", name)
		if err != nil || string(value) != "default|"+name || version != 7 {
			t.Errorf("Get(%q) = %q, %d, %v", name, value, version, err)
		}
		if w, err := c.Put(t.Context(), "default", name, []byte("four")); err != nil || w.Key != name || w.Version != 4 {
			t.Errorf("Put(%q) = %+v, %v", name, w, err)
		}
		if s, err := c.Stock(t.Context(), name); err != nil || s.SKU != name {
			t.Errorf("Stock(%q) = %+v, %v", name, s, err)
		}
	}
}

func TestCompareAndSetSaysWhatItExpects(t *testing.T) {
	var match, none string
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(r *http.Request) (*http.Response, error) {
		match, none = r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
		return answer(200, `{"version":4}`)
	}}}
	c := pinned(t, n, nil, "a:1")
	for _, test := range []struct {
		expected    uint64
		match, none string
	}{{3, `"3"`, ""}, {0, "", "*"}} {
		if w, err := c.CompareAndSet(t.Context(), "default", "k", nil, test.expected); err != nil || w.Version != 4 || match != test.match || none != test.none {
			t.Errorf("CompareAndSet(%d): If-Match %q, If-None-Match %q, %+v, %v", test.expected, match, none, w, err)
		}
	}
}

func TestAnAnswerThatIsCutOffIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": script(
			func(*http.Request) (*http.Response, error) {
				r, err := answer(200, `{"id":"ord_1","sta`)
				r.ContentLength = 100
				return r, err
			}, healthy)}}
		if o, err := pinned(t, n, nil, "a:1").Order(t.Context(), "ord_1", 0); err != nil || o.State != "confirmed" {
			t.Errorf("got %+v, %v", o, err)
		}
	})
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			header string
			want   time.Duration
		}{
			{"", 0}, {"3", 3 * time.Second}, {"-1", 0}, {"soon", 0},
			{time.Now().Add(5 * time.Second).UTC().Format(http.TimeFormat), 5 * time.Second},
			{time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 0},
		} {
			if got := retryAfter(test.header); got != test.want {
				t.Errorf("retryAfter(%q) = %v, want %v", test.header, got, test.want)
			}
		}
	})
}

func TestKeysAreDrawn(t *testing.T) {
	if a, b := NewKey(), NewKey(); a == b || len(a) != 32 {
		t.Errorf("keys %q and %q", a, b)
	}
}

// The key that is drawn for an order has the customer as its hash tag, where the key may hold it: it is kept where the order is.
func TestKeysOfOrdersAreDrawn(t *testing.T) {
	for customer, tag := range map[string]string{
		"": "", "ann": "{ann}", "ann@example.org": "{ann@example.org}",
		"ann{b": "", "ann}b": "", "ann b": "", "änn": "", "ann\x7f": "",
		strings.Repeat("a", 221): "{" + strings.Repeat("a", 221) + "}", strings.Repeat("a", 222): "",
	} {
		n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": healthy}}
		c := pinned(t, n, nil, "a:1")
		for range 2 {
			if _, err := c.PlaceOrder(t.Context(), "", &PlaceOrder{CustomerID: customer}); err != nil {
				t.Fatal(err)
			}
		}
		for _, key := range n.keys {
			if drawn, ok := strings.CutPrefix(key, tag); !ok || len(drawn) != 32 {
				t.Errorf("an order of %q has the key %q, want %q and 32 digits", customer, key, tag)
			}
		}
		if n.keys[0] == n.keys[1] {
			t.Errorf("two orders of %q have one key, %q", customer, n.keys[0])
		}
	}
}

// serve serves h on a real port until the test ends.
func serve(t testing.TB, h http.Handler) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // until Close
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return l.Addr().String()
}

// BenchmarkPlaceOrder measures what the client adds to an order of three lines, with a server that does nothing.
func BenchmarkPlaceOrder(b *testing.B) {
	placed := Order{ID: "ord_01kq3m6s2zt1m2n8c4v7d9e5fg", State: "confirmed", Revision: 5, CustomerID: "ann", Currency: "EUR", Lines: make([]Line, 3)}
	body, err := json.Marshal(placed)
	if err != nil {
		b.Fatal(err)
	}
	addr := serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	}))
	c, err := New(Config{Addrs: []string{addr}, Pinned: true})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := &PlaceOrder{CustomerID: "ann", Currency: "EUR", Lines: []NewLine{{SKU: "A", Quantity: 1, UnitPrice: 1}, {SKU: "B", Quantity: 1, UnitPrice: 1}, {SKU: "C", Quantity: 1, UnitPrice: 1}}}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.PlaceOrder(b.Context(), "", p); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func TestATraceparentGoesWithEachRequest(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	var got []string
	n := &network{nodes: map[string]func(*http.Request) (*http.Response, error){"a:1": func(r *http.Request) (*http.Response, error) {
		got = append(got, strings.Join(r.Header["Traceparent"], ","))
		return answer(404, `{"code":"not_found","trace":"4bf92f3577b34da6a3ce929d0e0e4736"}`)
	}}}
	c := pinned(t, n, nil, "a:1")
	ctx := WithTraceparent(t.Context(), parent)
	_, err := c.Order(ctx, "ord_1", 0)
	if e, ok := errors.AsType[*Error](err); !ok || e.Trace != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("error %v, want one with its trace", err)
	}
	for range c.Follow(ctx, FollowOptions{}) {
	}
	_, _ = c.Order(t.Context(), "ord_1", 0)
	if want := []string{parent, parent, ""}; !slices.Equal(got, want) {
		t.Errorf("headers %q, want %q", got, want)
	}
}
