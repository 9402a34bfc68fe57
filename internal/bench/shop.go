package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Shop is a running cluster with the stock that a benchmark sells.
type Shop struct {
	addrs []string
	run   string
	names []string
	// Retries counts requests that were sent again, by all clients.
	Retries atomic.Int64
	// Nodes and inventoryShards are what the cluster has.
	Nodes           int
	inventoryShards int

	before []Counters
}

// Counters of a SKU.
type Counters struct {
	SKU         string `json:"sku"`
	OnHand      int64  `json:"on_hand"`
	Reserved    int64  `json:"reserved"`
	Allocated   int64  `json:"allocated"`
	Unavailable int64  `json:"unavailable"`
	Available   int64  `json:"available"`
}

// receivers is how many receipts are under way at once.
const receivers = 64

// Open looks the cluster up and receives stock units of each of skus SKUs. The run names the SKUs and the idempotency keys: two runs
// of different names have nothing in common. Addresses are host:port or http URLs of any nodes.
func Open(ctx context.Context, addrs []string, run string, skus int, stock int64) (*Shop, error) {
	s := &Shop{run: run}
	for _, a := range addrs {
		if u, err := url.Parse(a); err == nil && u.Host != "" {
			if u.Scheme != "http" {
				return nil, fmt.Errorf("address %s: the benchmark speaks plain HTTP only", a)
			}
			a = u.Host
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("address %q: want host:port", a)
		}
		s.addrs = append(s.addrs, a)
	}
	if len(s.addrs) == 0 {
		return nil, errors.New("no address to send orders to")
	}
	for i := range skus {
		s.names = append(s.names, fmt.Sprintf("%s-%05d", run, i))
	}
	var shards struct{ Counts map[string]int }
	if err := s.get(ctx, "/v1/shards", &shards); err != nil {
		return nil, err
	}
	var nodes struct{ Nodes []struct{ Rest string } }
	if err := s.get(ctx, "/v1/nodes", &nodes); err != nil {
		return nil, err
	}
	s.Nodes, s.inventoryShards = len(nodes.Nodes), shards.Counts["inventory"]
	if err := s.receive(ctx, stock); err != nil {
		return nil, err
	}
	var err error
	s.before, err = s.Stock(ctx)
	return s, err
}

// SKU returns the name of SKU i.
func (s *Shop) SKU(i int) string { return s.names[i] }

// Client returns client number i, whose orders start at one of the nodes in turn.
func (s *Shop) Client(i int) *REST {
	return &REST{shop: s, addrs: s.addrs, at: i, key: fmt.Appendf(nil, "%s-%d-", s.run, i)}
}

// Sell drives n clients under the load and has the stock checked afterwards ([Shop.Check]).
func (s *Shop) Sell(ctx context.Context, load Load, n int) (r *Result, oversold int64, err error) {
	clients := make([]Client, n)
	for i := range clients {
		clients[i] = s.Client(i)
	}
	r, err = Run(ctx, load, clients)
	for _, c := range clients {
		c.(*REST).Close()
	}
	if err == nil {
		oversold, err = s.Check(ctx, r)
	}
	return r, oversold, err
}

func (s *Shop) receive(ctx context.Context, stock int64) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for i := range min(receivers, len(s.names)) {
		g.Go(func() error {
			c, err := dial(ctx, s.addrs[i%len(s.addrs)])
			if err != nil {
				return err
			}
			defer c.close()
			for {
				k := int(next.Add(1)) - 1
				if k >= len(s.names) {
					return nil
				}
				body := fmt.Sprintf(`{"quantity":%d,"reason":"benchmark"}`, stock)
				status, answer, err := c.do(fmt.Appendf(nil, "POST /v1/stock/%s/receipts HTTP/1.1\r\nHost: hanse\r\nContent-Type: application/json\r\nIdempotency-Key: receive-%s\r\nContent-Length: %d\r\n\r\n%s",
					s.names[k], s.names[k], len(body), body))
				if err != nil {
					return fmt.Errorf("receive %s: %w", s.names[k], err)
				}
				if status != 201 {
					return fmt.Errorf("receive %s: status %d: %.200s", s.names[k], status, answer)
				}
			}
		})
	}
	return g.Wait()
}

func (s *Shop) get(ctx context.Context, path string, into any) error {
	c, err := dial(ctx, s.addrs[0])
	if err != nil {
		return err
	}
	defer c.close()
	status, body, err := c.do(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: hanse\r\n\r\n", path))
	switch {
	case err != nil:
		return fmt.Errorf("GET %s: %w", path, err)
	case status != 200:
		return fmt.Errorf("GET %s: status %d: %.200s", path, status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// Stock reads the counters of all SKUs of the run.
func (s *Shop) Stock(ctx context.Context) ([]Counters, error) {
	stock := make([]Counters, len(s.names))
	found := 0
	for shard := range s.inventoryShards {
		// SKUs are paged in their order, so those of the run are neighbours.
		after, location := s.run+"-", ""
		for more := true; more; {
			var page struct {
				Items []struct {
					Counters
					Location string
				}
				More bool `json:"has_more"`
			}
			query := url.Values{"after": {after}, "after_location": {location}, "limit": {"1000"}}
			if err := s.get(ctx, "/v1/audit/items/"+strconv.Itoa(shard)+"?"+query.Encode(), &page); err != nil {
				return nil, err
			}
			more = page.More && len(page.Items) > 0
			for _, item := range page.Items {
				after, location = item.SKU, item.Location
				number, ours := strings.CutPrefix(item.SKU, s.run+"-")
				if !ours {
					more = false
					break
				}
				i, err := strconv.Atoi(number)
				if err != nil || i < 0 || i >= len(stock) {
					return nil, fmt.Errorf("stock of %s, which is none of this run's", item.SKU)
				}
				stock[i] = item.Counters
				found++
			}
		}
	}
	if found != len(stock) {
		return nil, fmt.Errorf("found the stock of %d SKUs, want %d", found, len(stock))
	}
	return stock, nil
}

// settleTime bounds the wait for what confirmed orders still do to the stock; settlePause is the time between two looks.
const (
	settleTime  = 10 * time.Second
	settlePause = 50 * time.Millisecond
)

// Check compares the stock with what was confirmed and returns the units sold that are not there: those promised beyond
// what is on hand, and those confirmed to a client and not kept for it. It waits until nothing is reserved any more: an order is
// confirmed before its stock is allocated. An error says that the counters are wrong otherwise.
func (s *Shop) Check(ctx context.Context, r *Result) (oversold int64, err error) {
	for deadline := time.Now().Add(settleTime); ; pause(ctx, settlePause) {
		after, err := s.Stock(ctx)
		if err != nil {
			return 0, err
		}
		var reserved int64
		for _, c := range after {
			reserved += c.Reserved
		}
		if reserved == 0 || time.Now().After(deadline) {
			return compare(s.before, after, r.Confirmed, r.Unknown)
		}
	}
}

func compare(before, after []Counters, confirmed, unknown []int64) (oversold int64, err error) {
	for i, a := range after {
		b := before[i]
		oversold += max(0, a.Reserved+a.Allocated+a.Unavailable-a.OnHand)
		kept := a.Allocated + a.Reserved - b.Allocated - b.Reserved
		oversold += max(0, confirmed[i]-kept)
		if kept > confirmed[i]+unknown[i] {
			return oversold, fmt.Errorf("the stock is wrong: %s: %d units kept for orders, but only %d confirmed and %d without an answer", a.SKU, kept, confirmed[i], unknown[i])
		}
		if a.OnHand != b.OnHand {
			return oversold, fmt.Errorf("the stock is wrong: %s: %d on hand, %d before, and none was sent or received", a.SKU, a.OnHand, b.OnHand)
		}
	}
	return oversold, nil
}
