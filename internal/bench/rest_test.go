package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// cluster is the part of the REST API that a benchmark uses, over a map.
type cluster struct {
	mu     sync.Mutex
	stock  map[string]*Counters
	orders map[string]bool // keys
	// trouble answers an order instead of the cluster, when it returns true.
	trouble func(w http.ResponseWriter, n int) bool
	posts   int
}

func newCluster(t *testing.T) (*cluster, string) {
	c := &cluster{stock: make(map[string]*Counters), orders: make(map[string]bool)}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return c, s.URL
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := func(status int, v any) {
		body, _ := json.Marshal(v)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		w.Write(body)
	}
	switch path := r.URL.Path; {
	case path == "/v1/nodes":
		answer(200, map[string]any{"nodes": []any{map[string]any{"rest": r.Host}}})
	case path == "/v1/shards":
		answer(200, map[string]any{"counts": map[string]int{"inventory": 2}})
	case strings.HasPrefix(path, "/v1/audit/items/"):
		const rows = 7 // pages smaller than were asked for
		var page struct {
			Items []Counters `json:"items"`
			More  bool       `json:"has_more"`
		}
		for _, sku := range slices.Sorted(maps.Keys(c.stock)) {
			if sku <= r.URL.Query().Get("after") || fmt.Sprint(int(sku[len(sku)-1])%2) != path[len("/v1/audit/items/"):] {
				continue
			}
			if len(page.Items) == rows {
				page.More = true
				break
			}
			page.Items = append(page.Items, *c.stock[sku])
		}
		answer(200, page)
	case strings.HasSuffix(path, "/receipts"):
		sku := strings.Split(path, "/")[3]
		var change struct{ Quantity int64 }
		json.NewDecoder(r.Body).Decode(&change)
		c.stock[sku] = &Counters{SKU: sku, OnHand: change.Quantity, Available: change.Quantity}
		answer(201, c.stock[sku])
	case path == "/v1/orders":
		c.posts++
		body, _ := io.ReadAll(r.Body)
		if c.trouble != nil && c.trouble(w, c.posts) {
			return
		}
		var o struct{ Lines []struct{ SKU string } }
		if err := json.Unmarshal(body, &o); err != nil || r.Header.Get("Idempotency-Key") == "" {
			answer(400, map[string]string{"code": "invalid_request"})
			return
		}
		for _, l := range o.Lines {
			if c.stock[l.SKU].Available == 0 {
				answer(409, map[string]any{"code": "out_of_stock"})
				return
			}
		}
		if !c.orders[r.Header.Get("Idempotency-Key")] {
			c.orders[r.Header.Get("Idempotency-Key")] = true
			for _, l := range o.Lines {
				c.stock[l.SKU].Allocated++
				c.stock[l.SKU].Available--
			}
		}
		answer(201, map[string]any{"state": "confirmed"})
	default:
		answer(404, nil)
	}
}

// sell runs a short load of two clients against the cluster and returns its result and what the check says.
func sell(t *testing.T, url string, stock int64) (*Shop, *Result, int64, error) {
	t.Helper()
	shop, err := Open(t.Context(), []string{url}, "run", 20, stock)
	if err != nil {
		t.Fatal(err)
	}
	clients := []Client{shop.Client(0), shop.Client(1)}
	r, err := Run(t.Context(), Load{Workload: Zipf, SKUs: 20, Lines: 2, Duration: 50 * time.Millisecond, Seed: 3}, clients)
	if err != nil {
		t.Fatal(err)
	}
	oversold, err := shop.Check(t.Context(), r)
	return shop, r, oversold, err
}

// units counts what was confirmed, in time to be measured or not: a loaded machine may be late.
func units(r *Result) (n int64) {
	for _, c := range r.Confirmed {
		n += c
	}
	return n
}

func TestSellingOverREST(t *testing.T) {
	_, url := newCluster(t)
	shop, r, oversold, err := sell(t, url, 1_000_000)
	if err != nil || oversold != 0 || units(r) == 0 || r.Errors != 0 || r.Refused != 0 || shop.Nodes != 1 {
		t.Errorf("units %d, errors %d (%v), refused %d, oversold %d, %v; want some units and nothing else", units(r), r.Errors, r.FirstError, r.Refused, oversold, err)
	}
}

func TestSoldOutIsARefusal(t *testing.T) {
	c, url := newCluster(t)
	shop, err := Open(t.Context(), []string{url}, "run", 20, 3)
	if err != nil {
		t.Fatal(err)
	}
	client := shop.Client(0)
	defer client.Close()
	for n := range 5 {
		err := client.Order(t.Context(), []int{0, 1})
		refusal, refused := errors.AsType[*Refusal](err)
		if refused != (n >= 3) || !refused && err != nil || refused && refusal.Code != "out_of_stock" {
			t.Errorf("order %d of a stock of 3: %v", n+1, err)
		}
	}
	if sold := c.stock["run-00000"].Allocated; sold != 3 {
		t.Errorf("sold %d, want 3", sold)
	}
}

// Whatever goes wrong on the way, an order is sent again under its key and placed once.
func TestOrdersAreRepeatedUnderTheirKey(t *testing.T) {
	for name, trouble := range map[string]func(w http.ResponseWriter){
		"overloaded": func(w http.ResponseWriter) { http.Error(w, "busy", http.StatusServiceUnavailable) },
		"pending": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "2")
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, "{}")
		},
		"in progress": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "59")
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"code":"idempotency_key_in_progress","retryable":true}    `)
		},
		"cut off": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"chunked": func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"farewell": func(w http.ResponseWriter) {
			w.Header().Set("Connection", "close")
			http.Error(w, "", http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, url := newCluster(t)
			c.trouble = func(w http.ResponseWriter, n int) bool {
				if n == 2 {
					trouble(w)
					return true
				}
				return false
			}
			shop, r, oversold, err := sell(t, url, 1_000_000)
			if err != nil || oversold != 0 || r.Errors != 0 || units(r) == 0 {
				t.Errorf("units %d, errors %d (%v), oversold %d, %v; want units only", units(r), r.Errors, r.FirstError, oversold, err)
			}
			if shop.Retries.Load() == 0 {
				t.Error("nothing was sent again")
			}
		})
	}
}

func TestCompareFindsWrongBooks(t *testing.T) {
	before := []Counters{{SKU: "A", OnHand: 10}, {SKU: "B", OnHand: 10, Allocated: 2}}
	for _, test := range []struct {
		name      string
		after     []Counters
		confirmed []int64
		unknown   []int64
		oversold  int64
		wrong     bool
	}{
		{"all well", []Counters{{OnHand: 10, Allocated: 3}, {OnHand: 10, Allocated: 3, Reserved: 1}}, []int64{3, 2}, []int64{0, 0}, 0, false},
		{"an order without an answer was placed", []Counters{{OnHand: 10, Allocated: 4}, {OnHand: 10, Allocated: 2}}, []int64{3, 0}, []int64{2, 0}, 0, false},
		{"more promised than is there", []Counters{{OnHand: 10, Allocated: 11}, {OnHand: 10, Allocated: 2}}, []int64{11, 0}, []int64{0, 0}, 1, false},
		{"confirmed and not kept", []Counters{{OnHand: 10, Allocated: 1}, {OnHand: 10, Allocated: 2}}, []int64{3, 0}, []int64{0, 0}, 2, false},
		{"kept for nobody", []Counters{{OnHand: 10, Allocated: 5}, {OnHand: 10, Allocated: 2}}, []int64{3, 0}, []int64{1, 0}, 0, true},
		{"units have gone", []Counters{{OnHand: 9}, {OnHand: 10, Allocated: 2}}, []int64{0, 0}, []int64{0, 0}, 0, true},
	} {
		oversold, err := compare(before, test.after, test.confirmed, test.unknown)
		if oversold != test.oversold || (err != nil) != test.wrong {
			t.Errorf("%s: compare = %d, %v; want %d, an error: %v", test.name, oversold, err, test.oversold, test.wrong)
		}
	}
}

func TestOpenRefusesAddresses(t *testing.T) {
	for _, addrs := range [][]string{nil, {"nowhere"}, {"https://127.0.0.1:1"}} {
		if _, err := Open(t.Context(), addrs, "run", 10, 1); err == nil {
			t.Errorf("Open(%q) succeeds", addrs)
		}
	}
}
